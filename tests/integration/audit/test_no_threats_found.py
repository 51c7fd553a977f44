"""*No threats found* is a statement about every window of the run, so every window must have been read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tests.support.lab import SIEM, START, open_lab
from tests.support.scenes import lasting, threats_at

WORDS = "No threats found in the specified time window."
HOUR = timedelta(hours=1)
UNREAD = [
    pytest.param(lasting("status", status=503), id="503"),
    pytest.param(lasting("status", status=429), id="429"),
    pytest.param(lasting("status", status=400, body=b"Bad Request"), id="400"),
    pytest.param(lasting("status", status=302, headers={"Location": "https://example.com"}), id="302"),
    pytest.param(lasting("reset"), id="reset"),
    pytest.param(lasting("body", body=b"{}"), id="a gateway's 200"),
]


@pytest.mark.parametrize("fault", UNREAD)
def test_it_is_not_said_when_no_window_was_read(fault: Fault) -> None:
    with open_lab(threats_at(START - HOUR / 2, 0)) as lab:
        lab.tap.faults.add(SIEM, fault)
        assert not lab.run().has_message(WORDS)


@pytest.mark.parametrize("fault", UNREAD)
def test_it_is_not_said_when_one_of_several_windows_was_not_read(fault: Fault) -> None:
    with open_lab(threats_at(START - HOUR / 2, 0), LOOKBACK_HOURS="4") as lab:
        lab.tap.faults.add(SIEM, fault, overlapping=(START - 3 * HOUR, START - 2.5 * HOUR))
        assert not lab.run().has_message(WORDS)


def test_it_is_not_said_when_the_quota_ends_before_the_last_window() -> None:
    with open_lab(threats_at(START - HOUR / 2, 0), LOOKBACK_HOURS="4", TAP_SIEM_DAILY_LIMIT="2") as lab:
        assert not lab.run().has_message(WORDS)


def test_it_is_said_once_every_window_was_read() -> None:
    with open_lab(threats_at(START - HOUR / 2, 0), LOOKBACK_HOURS="4") as lab:
        assert lab.run().has_message(WORDS)
