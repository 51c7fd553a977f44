"""Forensics reports: both scopes, every documented type of evidence, and some undocumented ones.

Types and their fields follow Proofpoint's TAP Forensics API documentation. Some live responses
differ (ports as text, `blacklisted` as a number, no `type` on the report); the live form is generated too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tap_forensics.sandbox.messages import WorldThreat, hex_digits, stamp

What = dict[str, Any]
VARIANTS = 16


def _host(rng: random.Random) -> str:
    return f"host-{rng.randrange(5000)}.example.com"


def _url(rng: random.Random) -> str:
    return f"https://{_host(rng)}/{hex_digits(rng, rng.choice([6, 20, 90]))}"


def _ip(rng: random.Random) -> str:
    return rng.choice([f"198.51.100.{rng.randrange(1, 255)}", f"2001:db8::{rng.randrange(1, 9999):x}"])


def _path(rng: random.Random) -> str:
    return rf"C:\Users\demo\AppData\Local\Temp\{hex_digits(rng, 8)}.exe"


def _attachment(rng: random.Random) -> What:
    blacklisted = rng.choice([True, False, 1, 0])
    hashes = {"sha256": hex_digits(rng, 64), "md5": hex_digits(rng, 32)}
    return hashes | {
        "blacklisted": blacklisted,
        "offset": 0,
        "rule": "demo_rule",
        "size": rng.randrange(90_000),
    }


def _behavior(rng: random.Random) -> What:
    return {"rule": "writes_startup_key", "path": _path(rng), "url": _url(rng), "key": None, "note": "später"}


def _cookie(rng: random.Random) -> What:
    return {"action": "set", "domain": _host(rng), "key": "sid", "value": hex_digits(rng, 24)}


def _dns(rng: random.Random) -> What:
    servers = ["ns1.example.com", "ns2.example.com"]
    answer = {"host": _host(rng), "cnames": [_host(rng)], "ips": [_ip(rng), _ip(rng)]}
    return answer | {"nameservers": servers, "nameserversList": servers}


def _dropper(rng: random.Random) -> What:
    return {"path": _path(rng), "rule": "drops_binary", "url": _url(rng)}


def _file(rng: random.Random) -> What:
    hashes = {"md5": hex_digits(rng, 32), "sha256": hex_digits(rng, 64)}
    path = rng.choice([_path(rng), _url(rng)])
    return hashes | {"path": path, "action": "create", "rule": "demo_rule", "size": rng.randrange(900_000)}


def _ids(rng: random.Random) -> What:
    return {"name": "ET DEMO Landing Page", "signatureId": rng.randrange(2_000_000, 2_900_000)}


def _mutex(rng: random.Random) -> What:
    return {"name": rf"Global\{hex_digits(rng, 12)}", "path": _path(rng)}


def _network(rng: random.Random) -> What:
    port = rng.choice([443, 80, "8443", "53"])
    return {"action": "connect", "ip": _ip(rng), "port": port, "type": rng.choice(["tcp", "udp"])}


def _process(rng: random.Random) -> What:
    return {"action": "create", "path": _path(rng)}


def _registry(rng: random.Random) -> What:
    key = r"HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Run"
    return {"action": "set", "key": key, "name": "demo", "rule": "autorun", "value": _path(rng)}


def _screenshot(rng: random.Random) -> What:
    return {"url": f"https://screens.example.com/{hex_digits(rng, 64)}.png"}


def _web(rng: random.Random) -> What:
    body = {"md5": hex_digits(rng, 32), "sha256": hex_digits(rng, 64), "size": rng.randrange(90_000)}
    head = {"url": _url(rng), "ip": _ip(rng), "httpStatus": rng.choice([200, 302, 404])}
    return head | body | {"blacklisted": rng.choice([True, False, 1, 0]), "rule": "phish_kit", "offset": 0}


def _redirect_chain(rng: random.Random) -> What:
    return {"url": _url(rng)}


def _domains(rng: random.Random) -> What:
    return {"domains": [_host(rng), _host(rng)]}


def _wmi_query(rng: random.Random) -> What:
    return {"query": "SELECT * FROM Win32_BIOS", "depth": {"levels": [rng.randrange(9), None, 1.5e3]}}


DOCUMENTED: dict[str, Callable[[random.Random], What]] = {
    "attachment": _attachment,
    "behavior": _behavior,
    "cookie": _cookie,
    "dns": _dns,
    "dropper": _dropper,
    "file": _file,
    "ids": _ids,
    "mutex": _mutex,
    "network": _network,
    "process": _process,
    "registry": _registry,
    "screenshot": _screenshot,
    "url": _web,
    "redirect_chain": _redirect_chain,
}
# `domains` was seen on a live tenant. `wmi_query` is invented, because new types appear without notice.
UNDOCUMENTED: dict[str, Callable[[random.Random], What]] = {"domains": _domains, "wmi_query": _wmi_query}
EVIDENCE = DOCUMENTED | UNDOCUMENTED


def evidence(rng: random.Random, kind: str) -> dict[str, Any]:
    """One item of `forensics[]`. Optional fields are present at random."""
    what = EVIDENCE[kind](rng)
    text = max((value for value in what.values() if isinstance(value, str)), key=len, default=kind)
    item: dict[str, Any] = {
        "type": kind,
        "display": text if len(text) <= 60 else text[:58] + "..",
        "engine": rng.choice(["iee", "static", "tstatic", "av"]),
        "what": what,
        "platforms": [{"name": "Win10", "os": "win"} | ({"version": "10.0"} if rng.random() < 0.5 else {})],
    }
    if rng.random() < 0.7:
        item["malicious"] = rng.random() < 0.1
    if rng.random() < 0.3:
        item["time"] = 0
    if rng.random() < 0.2:
        item["note"] = "first line\nsecond \u2028 line"
    return item


def evidence_list(rng: random.Random, first: int, count: int, size_bytes: int | None) -> list[dict[str, Any]]:
    """`count` items, or enough to fill `size_bytes` of JSON. Types rotate, starting with number `first`."""
    kinds = list(EVIDENCE)
    items: list[dict[str, Any]] = []
    written = 0
    while written < size_bytes if size_bytes is not None else len(items) < count:
        items.append(evidence(rng, kinds[(first + len(items)) % len(kinds)]))
        written += len(dumped(items[-1])) + 1
    return items


def dumped(value: Any, indent: int | None = None) -> bytes:
    """JSON as the API sends it: UTF-8, not ASCII-escaped."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(value, ensure_ascii=False, separators=separators, indent=indent).encode()


class ReportBook:
    """Generates the reports of one world as bytes and caches them. The same seed returns the same bytes.

    With `report_bytes` each report is filled to about that size. A benchmark then requests gigabytes, so
    threats share a few prepared lists of evidence. Without it, each threat has its own list.
    """

    def __init__(self, seed: int, generated: datetime, evidences: int) -> None:
        self.seed = seed
        self.generated = generated
        self.evidences = evidences
        self.report_bytes: int | None = None
        self.campaign_report_bytes: int | None = None
        self._made: dict[str, bytes] = {}

    def threat_report(self, threat: WorldThreat) -> bytes:
        """A report of scope THREAT as JSON. Without `report_bytes`, one in five is pretty-printed."""
        head = {"scope": "THREAT", "id": threat.id, "name": threat.artifact, "threatStatus": threat.status}
        if self.report_bytes is None:
            return self._own(
                threat.id, head, threat.number * self.evidences, 2 if threat.number % 5 == 4 else None
            )
        return self._joined(head, self._variant(threat.number % VARIANTS, self.report_bytes))

    def campaign_report(self, campaign: str) -> bytes:
        """The report of a campaign. It is the same for each of the campaign's threats."""
        head = {"scope": "CAMPAIGN", "id": campaign, "name": f"Campaign {campaign[:8]}"}
        if self.campaign_report_bytes is None:
            return self._own(campaign, head, 3, None)
        if campaign not in self._made:
            items = evidence_list(self._rng(campaign), 0, 0, self.campaign_report_bytes)
            self._made[campaign] = self._joined(head, dumped(items))
        return self._made[campaign]

    def response(self, reports: list[bytes]) -> bytes:
        """The whole response body for the reports. `generated` is only here, at the top level."""
        head = dumped({"generated": stamp(self.generated)})
        return head[:-1] + b',"reports":[' + b",".join(reports) + b"]}"

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}:{name}")

    def _own(self, name: str, head: dict[str, Any], first: int, indent: int | None) -> bytes:
        if name not in self._made:
            items = evidence_list(self._rng(name), first, self.evidences, None)
            self._made[name] = dumped(head | {"forensics": items}, indent)
        return self._made[name]

    def _variant(self, number: int, size_bytes: int) -> bytes:
        name = f"variant {number}"
        if name not in self._made:
            self._made[name] = dumped(evidence_list(self._rng(name), number, 0, size_bytes))
        return self._made[name]

    def _joined(self, head: dict[str, Any], items: bytes) -> bytes:
        return dumped(head)[:-1] + b',"forensics":' + items + b"}"
