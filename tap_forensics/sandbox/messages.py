"""Bodies of SIEM events in the forms that integrators saw on live tenants, including the unusual ones.

Some documented field names differ from the live ones (`threatId`/`threatID`, `clusterId`/`cluster`). Both
spellings are generated, so a reader that knows only one of them misses threats.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

SUBJECTS = (
    "Your parcel is waiting",
    "Rechnung für März, bitte prüfen",
    "Payroll update",
    "請求書 ☕",
    "RE: \u2028 Q3",
)
JUNK_ENTRIES: tuple[Any, ...] = (
    17,
    None,
    {},
    "not an object",
    {"threatID": None, "classification": "phish"},
    {"threatID": 42, "threatType": "url"},
)
STUB_KEEPS = frozenset({"GUID", "id", "messageTime", "threatsInfoMap"})


@dataclass(frozen=True)
class WorldThreat:
    """One threat that the stand-in knows.

    `id` is 64 hex digits. `kind` is url, attachment or messageText. `artifact` is the URL without scheme, the
    SHA-256 or the address; the API calls it `threat`. `answer` is what the Forensics API returns: `report`,
    `empty` (200 with no reports) or `unknown` (404). Without `has_summary`, its summary is a 404.
    """

    id: str
    number: int
    campaign: str | None = None
    kind: str = "url"
    status: str = "active"
    classification: str = "phish"
    artifact: str = "login.example.com/portal"
    answer: str = "report"
    has_summary: bool = True


def stamp(moment: datetime) -> str:
    """The API's time format: UTC, milliseconds, `Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def hex_digits(rng: random.Random, count: int) -> str:
    return f"{rng.getrandbits(4 * count):0{count}x}"


def address(rng: random.Random) -> str:
    return f"user{rng.randrange(900)}@example.com"


def threat_entry(rng: random.Random, threat: WorldThreat, seen: datetime) -> dict[str, Any]:
    """One item of `threatsInfoMap`, in the live spelling or the documented one."""
    live = rng.random() < 0.7
    entry: dict[str, Any] = {
        "threatID" if live else "threatId": threat.id,
        "campaignID" if live else "campaignId": threat.campaign,
        "classification": threat.classification,
        "threat": threat.artifact,
        "threatType": threat.kind,
        "threatStatus": threat.status,
        "threatTime": stamp(seen),
        "threatUrl": f"https://threats.example.com/threat/{threat.id}",
    }
    if rng.random() < 0.3:
        entry |= {"detectionType": "URL", "actors": [{"id": hex_digits(rng, 32), "name": "TA-example"}]}
    return entry


def threats_info(
    rng: random.Random, threats: Sequence[WorldThreat], seen: datetime, junk: float
) -> list[Any]:
    """The whole `threatsInfoMap`. With probability `junk` it contains one malformed entry."""
    entries: list[Any] = [threat_entry(rng, threat, seen) for threat in threats]
    if rng.random() < junk:
        entries.insert(rng.randrange(len(entries) + 1), rng.choice(JUNK_ENTRIES))
    return entries


def message_parts(rng: random.Random) -> list[dict[str, Any]]:
    """Two to four parts. The stand-in shuffles them in every response, as live tenants do."""
    return [
        {
            "disposition": "attached" if number else "inline",
            "filename": f"part-{number}.bin" if number else "text.html",
            "contentType": "application/octet-stream" if number else "text/html",
            "oContentType": "application/octet-stream" if number else "text/html",
            "md5": hex_digits(rng, 32) if rng.random() < 0.8 else None,
            "sha256": hex_digits(rng, 64),
            "sandboxStatus": rng.choice([None, "NOT_SUPPORTED", "CLEAN", "THREAT"]),
        }
        for number in range(rng.randint(2, 4))
    ]


def mail(rng: random.Random, created: datetime) -> dict[str, Any]:
    """The fields that all copies of one mail share: all except `id`, `recipient` and `threatsInfoMap`."""
    sender = f"sender{rng.randrange(300)}@example.com"
    score = rng.randint(0, 100)
    return {
        "GUID": hex_digits(rng, 32),
        "QID": f"{hex_digits(rng, 10)}-1",
        "messageID": f"<{hex_digits(rng, 24)}@mail.example.com>",
        # Mail may be recognised after it was received. Windows use the later time, which is not in the body.
        "messageTime": stamp(created - timedelta(minutes=rng.choice([0, 0, 1, 45, 300]))),
        "sender": sender,
        "senderIP": f"203.0.113.{rng.randrange(1, 255)}",
        "fromAddress": rng.choice([[sender], None]),
        "headerFrom": f'"Äccounts" <{sender}>',
        "toAddresses": rng.choice([[address(rng)], None]),
        "ccAddresses": rng.choice([[], None]),
        "replyToAddress": rng.choice([["reply@example.com"], None]),
        "headerReplyTo": None,
        "subject": rng.choice(SUBJECTS),
        "messageSize": rng.randint(900, 90_000),
        "spamScore": score,
        "phishScore": 100 - score,
        "malwareScore": 0,
        "impostorScore": rng.choice([0, 0.0, 37.5]),
        "completelyRewritten": rng.choice([True, False, "true", "na"]),
        rng.choice(["cluster", "clusterId"]): "example_hosted",
        "modulesRun": rng.choice([["av", "spf", "dkimv", "urldefense"], None]),
        "policyRoutes": ["default_inbound"],
        "quarantineFolder": None,
        "quarantineRule": None,
        "xmailer": None,
        "messageParts": rng.choice([message_parts(rng), message_parts(rng), None]),
    }


def copy_for(
    rng: random.Random, body: dict[str, Any], recipient: str, info: list[Any] | None
) -> dict[str, Any]:
    """One recipient's copy of a mail: same GUID, its own `id` (sometimes absent) and `threatsInfoMap`."""
    copy = body | {"recipient": [recipient], "threatsInfoMap": info}
    if rng.random() < 0.8:
        copy["id"] = hex_digits(rng, 32)
    return copy


def stub(body: dict[str, Any]) -> dict[str, Any]:
    """A message with nearly all fields null, as seen on tenants. It still contains its threats."""
    return {key: value if key in STUB_KEEPS else None for key, value in body.items()} | {"sender": ""}


def click(rng: random.Random, threat: WorldThreat, created: datetime) -> dict[str, Any]:
    """A click event: one threat at the top level, `recipient` is a string, `threatURL` has a capital URL."""
    body: dict[str, Any] = {
        "GUID": hex_digits(rng, 32),
        "threatID" if rng.random() < 0.8 else "threatId": threat.id,
        "campaignId" if rng.random() < 0.8 else "campaignID": threat.campaign,
        "clickTime": stamp(created - timedelta(seconds=rng.choice([0, 20, 600]))),
        "threatTime": stamp(created),
        "url": f"https://{threat.artifact}",
        "classification": threat.classification,
        "clickIP": f"192.0.2.{rng.randrange(1, 255)}",
        "userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64)",
        "sender": f"sender{rng.randrange(300)}@example.com",
        "senderIP": "2001:db8::25",
        "recipient": address(rng),
        "messageID": f"<{hex_digits(rng, 24)}@mail.example.com>",
        "threatURL": f"https://threats.example.com/threat/{threat.id}",
        "threatStatus": threat.status,
    }
    if rng.random() < 0.8:
        body["id"] = hex_digits(rng, 32)
    return body
