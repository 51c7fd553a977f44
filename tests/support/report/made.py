"""Reports made by hand, and what the page finds in them."""

from __future__ import annotations

import json
from typing import Any

from tap_forensics.report.page.findings import Findings, find
from tap_forensics.report.records import Tally, read_records
from tap_forensics.report.source import Line


def findings(*documents: dict[str, Any], malicious_only: bool = False) -> Findings:
    lines = [Line("x:1", json.dumps(document).encode()) for document in documents]
    return find(read_records(lines, Tally()), malicious_only=malicious_only)


def report(*items: Any, **fields: Any) -> dict[str, Any]:
    known = {"scope": "THREAT", "id": "t1", "name": "n", "threatStatus": "active", "_threatId": "t1"}
    return known | {"generated": "2026-03-04T10:00:00Z", "forensics": list(items)} | fields


def malicious(kind: str, **what: Any) -> dict[str, Any]:
    return {"type": kind, "malicious": True, "what": what}
