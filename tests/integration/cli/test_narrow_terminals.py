"""Names stay in one piece on a narrow terminal, so that they can be copied."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import timedelta

import pytest

from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site
from tests.support.settings import STATE
from tests.support.terminals import terminal

HOUR = timedelta(hours=1)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TENANTS_PREFIX = "security/proofpoint/tap-forensics/emea-subsidiary"


def on_a_terminal(site: Site, columns: int, *words: str, **more: str) -> list[str]:
    """What a command writes, line by line, before the terminal wraps it."""
    env = {"PATH": os.environ["PATH"], "COLUMNS": str(columns), "TERM": "xterm", **site.env, **more}
    # Reading fails when the command has ended.
    with terminal(["-m", "tap_forensics", *words], env) as opened, suppress(OSError):
        opened.read_until("\0 never")
    return [ESCAPES.sub("", line) for line in opened.shown.splitlines()]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_status_keeps_names_and_intervals_in_one_piece(site: Site, columns: int) -> None:
    now = utc_now()
    name = f"{TENANTS_PREFIX}/tap_forensics_{now:%Y%m%d_%H%M%S}_0001.ndjson"
    site.bucket.put(name, "{}\n")
    start, end = now - 30 * HOUR, now - 29 * HOUR
    key = f"state/{TENANTS_PREFIX}/state.json"
    gap = f'{{"start": "{start.isoformat()}", "end": "{end.isoformat()}", "since": "{now.isoformat()}"}}'
    site.bucket.put(key, f'{{"version": 2, "last_event_time": "{now.isoformat()}", "gaps": [{gap}]}}')
    lines = on_a_terminal(site, columns, "status", GCS_PREFIX=TENANTS_PREFIX)
    interval = f"{start.strftime('%Y-%m-%dT%H:%M:%S')}"
    for whole in (name, f"gs://{site.bucket.name}/{key}"):
        assert sum(whole in line for line in lines) == 1, lines
    assert any(re.search(rf"{interval}[.\d]*Z/\S+Z", line) for line in lines)
    assert any("bytes" in line for line in lines)


@pytest.mark.parametrize("columns", [40, 80])
def test_state_show_keeps_names_and_reasons_in_one_piece(site: Site, columns: int) -> None:
    now = utc_now()
    why = "it was older than 7 days before TAP answered, after 12 failed attempts to read it"
    site.put_state(last_event_time=now, lost=[{"start": now - 2 * HOUR, "end": now - HOUR, "why": why}])
    lines = on_a_terminal(site, columns, "state", "show")
    assert any(f"gs://{site.bucket.name}/{STATE}" in line for line in lines)
    assert any(why in line for line in lines)


def test_a_table_fits_a_wide_terminal(site: Site) -> None:
    site.put_state(last_event_time=utc_now())
    lines = on_a_terminal(site, 200, "status")
    (head,) = [line for line in lines if "next back" in line]
    assert head.split() == ["pool", "used", "limit", "next", "back", "all", "back"]
