"""Contender: a plain sequential loop, in the manner of the published function.

One request at a time through urllib3's default pool, whole answers through `json`, every record in one list,
one text, one upload, then the state. A campaign's report is repeated under each of its threats.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import urllib3
from google.cloud.storage import Client

from .cost import tell_cost

_STEP = timedelta(hours=1)
_OK = 200


class PlainLoop:
    """One run, set up from the same environment as ours."""

    def __init__(self) -> None:
        self._base = os.environ["TAP_API_BASE"]
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=10, read=60))
        credentials = f"{os.environ['TAP_PRINCIPAL']}:{os.environ['TAP_SECRET']}"
        self._headers = urllib3.make_headers(basic_auth=credentials, user_agent="plain-loop")
        self._bucket = Client(project=None).bucket(os.environ["GCS_BUCKET"])

    def run(self) -> None:
        state = self._bucket.blob("tap-forensics/state.json")
        if state.exists():
            raise RuntimeError("a measured run starts without a state")
        end = datetime.now(UTC).replace(microsecond=0)
        threat_ids = self._threat_ids(end - timedelta(hours=int(os.environ["LOOKBACK_HOURS"])), end)
        records = [record for threat_id in threat_ids for record in self._records(threat_id)]
        text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        name = f"tap-forensics/tap_forensics_{end:%Y%m%d_%H%M%S}.ndjson"
        self._bucket.blob(name).upload_from_string(text, content_type="application/x-ndjson")
        state.upload_from_string(json.dumps({"last_event_time": end.isoformat()}), "application/json")

    def _threat_ids(self, start: datetime, end: datetime) -> set[str]:
        found: set[str] = set()
        while start < end:
            until = min(start + _STEP, end)
            query = {"format": "json", "interval": f"{start:%Y-%m-%dT%H:%M:%SZ}/{until:%Y-%m-%dT%H:%M:%SZ}"}
            found.update(threat_ids_in(self._get("/v2/siem/all", query)))
            start = until
        return found

    def _records(self, threat_id: str) -> Iterator[dict[str, Any]]:
        query = {"threatId": threat_id, "includeCampaignForensics": "true"}
        for report in self._get("/v2/forensics", query).get("reports", []):
            report["_threatId"] = threat_id
            yield report

    def _get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        answer = self._pool.request("GET", f"{self._base}{path}?{urlencode(query)}", headers=self._headers)
        if answer.status != _OK:
            raise RuntimeError(f"{path} answered {answer.status}")
        document: dict[str, Any] = json.loads(answer.data.decode("utf-8"))
        return document


def threat_ids_in(events: dict[str, Any]) -> Iterator[str]:
    for kind in ("messagesBlocked", "messagesDelivered"):
        for message in events.get(kind) or []:
            yield from map(_threat_id, message.get("threatsInfoMap") or [])
    for kind in ("clicksBlocked", "clicksPermitted"):
        yield from map(_threat_id, events.get(kind) or [])


def _threat_id(entry: dict[str, str]) -> str:
    """Documented in one spelling, sent in the other."""
    return entry.get("threatID") or entry["threatId"]


def run() -> None:
    PlainLoop().run()


if __name__ == "__main__":
    tell_cost(run)
