"""What an operator sees while an audit works."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta

from tap_forensics.clock import iso
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site
from tests.support.terminals import terminal


def test_it_shows_how_far_it_is_and_then_the_result(site: Site) -> None:
    site.env |= {"EVENTS_PREFIX": "tap-siem", "LOOKBACK_HOURS": "24"}
    assert site.call("run").exit_code == 0
    site.tap.latency_seconds = 0.05
    env = {"PATH": os.environ["PATH"], "COLUMNS": "150", "TERM": "xterm", **site.env}
    words = ["-m", "tap_forensics", "audit", "--from", iso(utc_now() - timedelta(hours=20))]
    # Reading fails when the command has ended.
    with terminal(words, env) as opened, suppress(OSError):
        opened.read_until("\0 never")
    before, _, after = opened.shown.partition("By kind")
    assert "Reading window " in before
    assert " windows from TAP" in before
    assert "Complete: the bucket has everything" in after
    # The plan comes first, and nothing of the progress stays.
    assert before.index("SIEM calls") < before.index("Reading window ")
    assert "Reading" not in after
