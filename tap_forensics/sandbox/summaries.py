"""What the API says about a threat or a campaign as a whole: how severe it is, and who and what is behind it.

Fields follow Proofpoint's documentation of the Threats API and the Campaign API. Public clients read some of
them by other names (`verticals`, `geographies`, `detectionType`); some summaries contain those too.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tap_forensics.sandbox.messages import WorldThreat, stamp

# The SIEM API writes `messageText`, the Threats API `message text`.
TYPES = {"messageText": "message text"}
ACTORS = ("TA-example", "TA-demo", "Größenwahn ☕")
TECHNIQUES = ("HTML smuggling", "Link shortener", "Password-protected archive", "Thread hijacking")
FAMILIES = {
    "malware": ("Downloader", "Stealer"),
    "phish": ("Credential phishing",),
    "impostor": ("Invoice fraud",),
}
MALWARE = ("DemoLoader", "Example RAT")
BRANDS = ("Example Bank", "Example Parcel")


def threat_summary(seed: int, threat: WorldThreat, status: str, identified: datetime) -> dict[str, Any]:
    """The response of `/v2/threat/summary/{id}`. All threats of a campaign have the same background."""
    rng = random.Random(f"{seed}:summary {threat.id}")
    score, targeted = rng.randint(0, 1000), rng.random() < 0.2
    summary: dict[str, Any] = {
        "id": threat.id,
        "identifiedAt": stamp(identified),
        "name": threat.artifact,
        "type": TYPES.get(threat.kind, threat.kind),
        "category": threat.classification.lower(),
        "status": status,
        "severity": score,
        "severityScore": score,
        "attackSpread": rng.randint(0, 200),
        "notable": rng.random() < 0.1,
        "verticallyTargeted": targeted,
        "geographicallyTargeted": rng.random() < 0.2,
    }
    if rng.random() < 0.3:
        summary |= {"detectionType": threat.kind.upper(), "verticals": targeted, "geographies": False}
    return summary | _background(seed, threat.campaign or threat.id, summary["category"])


def campaign_details(
    seed: int, campaign: str, members: Sequence[tuple[WorldThreat, datetime]], start: datetime
) -> dict[str, Any]:
    """The response of `/v2/campaign/{id}`. `members` are its threats with the times of their first events."""
    category = members[0][0].classification.lower() if members else "phish"
    background = _background(seed, campaign, category)
    return {
        "id": campaign,
        "name": f"Campaign {campaign[:8]}",
        "description": f"Mails with a lure\nfrom {len(members)} sources.",
        "startDate": stamp(min((identified for _, identified in members), default=start)),
        "notable": False,
        "campaignMembers": [_member(threat, identified) for threat, identified in members],
    } | background


def _member(threat: WorldThreat, identified: datetime) -> dict[str, Any]:
    kind = {"type": threat.kind, "subType": threat.classification.upper()}
    return {"id": threat.id, "name": threat.artifact, "threatTime": stamp(identified)} | kind


def _background(seed: int, about: str, category: str) -> dict[str, Any]:
    rng = random.Random(f"{seed}:background {about}")
    return {
        "actors": _some(rng, ACTORS, 1),
        "families": _some(rng, FAMILIES.get(category, ()), 1),
        "malware": _some(rng, MALWARE if category == "malware" else (), 1),
        "techniques": _some(rng, TECHNIQUES, 2),
        "brands": _some(rng, BRANDS if category == "phish" else (), 1),
    }


def _some(rng: random.Random, names: Sequence[str], most: int) -> list[dict[str, str]]:
    """None to `most` of the names. Each has the same id wherever it occurs."""
    chosen = rng.sample(names, min(rng.randint(0, most), len(names)))
    return [{"id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "name": name} for name in chosen]
