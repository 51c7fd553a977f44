"""A tenant of SecOps in which all is well, with one line of evidence and one event in the bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest
from click.testing import Result

from tap_forensics.records.ndjson import Provenance, report_lines
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site
from tests.support.secops_api import OPTIONS, SecopsApi, secops_api

FORENSICS, MAIL = "PROOFPOINT_TAP_FORENSICS", "PROOFPOINT_MAIL"
THREAT = "ab" * 32
GENERATED = "2026-11-26T20:00:00.120Z"


@pytest.fixture
def api(site: Site) -> Iterator[SecopsApi]:
    with secops_api() as api:
        api.set_up(site.bucket.name, **{FORENSICS: "tap-forensics", MAIL: "tap-siem"})
        site.env |= {"EVENTS_PREFIX": "tap-siem", "SECOPS_EMULATOR_HOST": api.url}
        put(site, api, FORENSICS, "tap-forensics/tap_forensics", evidence("report"))
        event = b'{"clicksPermitted":[{"threatID":"%s","url":"https://shop.example.com/"}]}\n'
        put(site, api, MAIL, "tap-siem/tap_siem_events", event % THREAT.encode())
        yield api


def put(site: Site, api: SecopsApi, log_type: str, stem: str, line: bytes) -> None:
    """In the bucket, and arrived."""
    site.bucket.put(f"{stem}_{utc_now():%Y%m%d_%H%M%S}.ndjson", line)
    api.raw_logs.append((log_type, line.decode()))


def evidence(shape: str) -> bytes:
    """As the function writes it."""
    what = {"url": "https://shop.example.com/invoice", "ip": "192.0.2.17"}
    fields = {
        "scope": "THREAT",
        "id": THREAT,
        "forensics": [{"type": "url", "malicious": True, "what": what}],
    }
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    provenance = Provenance(THREAT, None, msgspec.Raw(f'"{GENERATED}"'.encode()))
    (line,) = report_lines(raw, provenance, shape, 1_000_000).lines
    return line


def check(site: Site, *options: str, **env: str) -> Result:
    return site.call("check", *OPTIONS, *options, **env)


def found(site: Site, about: str, **env: str) -> list[tuple[str, str]]:
    """Mark, and words with remedy, of the findings about this."""
    listed = json.loads(check(site, "--json", **env).stdout)["findings"]
    return [
        (one["mark"], f"{one['words']} {one['remedy']}".strip()) for one in listed if one["about"] == about
    ]
