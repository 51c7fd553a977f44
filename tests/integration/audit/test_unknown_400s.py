"""A 400 whose sentence TAP is not known for says nothing of a window: it stays open until it expires."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

import pytest

from tests.support.lab import SIEM, START, STATE, lab
from tests.support.scenes import HTML, JSON, PAGE, lasting, once_each, threats_every

HOUR = timedelta(hours=1)
BODIES = [
    pytest.param(b"Bad Request", {"Content-Type": "text/plain"}, id="plain"),
    pytest.param(b'{"message":"HTTP 400 Bad Request"}', JSON, id="JSON"),
    pytest.param(PAGE, HTML, id="HTML"),
]


@pytest.mark.parametrize(("body", "headers"), BODIES)
def test_one_run_of_unknown_400s_while_catching_up_two_days_loses_nothing(
    body: bytes, headers: dict[str, str]
) -> None:
    world = threats_every(20, since=START - 48 * HOUR, until=START - HOUR / 6)
    with lab(world) as the:
        cursor = (START - 48 * HOUR).isoformat()
        the.bucket.put(STATE, json.dumps({"version": 1, "last_event_time": cursor}))
        the.tap.faults.add(SIEM, lasting("status", status=400, body=body, headers=headers))
        ran = the.run()
        assert ran.good.outcome == "incomplete"
        assert not ran.says("Lost")
        assert not the.state().get("lost")
        the.tap.faults.clear()
        for _ in range(3):
            the.time.advance(hours=1)
            assert not the.run().says("Lost")
        the.run_until_done()
        assert once_each(the)


def test_seven_days_of_unknown_400s_for_an_hour_lose_it_by_name_at_error_and_not_before() -> None:
    broken = (START - 3 * HOUR, START - 2 * HOUR)
    with lab(threats_every(30, since=START - 4 * HOUR, until=START), LOOKBACK_HOURS="4") as the:
        the.tap.faults.add(SIEM, lasting("status", status=400, body=b"Bad Request"), overlapping=broken)
        runs = [the.run()]
        for _ in range(13):
            the.time.advance(hours=12)
            runs.append(the.run())
        assert not any(ran.says("Lost interval") for ran in runs)
        the.time.advance(hours=12)
        lost = [line for line in the.run().said(logging.ERROR) if "Lost interval" in line]
        named = the.state()["lost"]
        assert lost
        assert all(any(each["start"] in line for line in lost) for each in named)
        assert min(datetime.fromisoformat(each["start"]) for each in named) <= broken[0]
        assert max(datetime.fromisoformat(each["end"]) for each in named) >= broken[1]
        assert not the.state().get("gaps")
