"""A 400 whose sentence TAP is not known for says nothing of a window: it stays open until it expires."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

import pytest

from tests.support.lab import SIEM, START, open_lab
from tests.support.scenes import HTML, JSON, PAGE, lasting, once_each, threats_every
from tests.support.settings import STATE

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
    with open_lab(world) as lab:
        cursor = (START - 48 * HOUR).isoformat()
        lab.bucket.put(STATE, json.dumps({"version": 1, "last_event_time": cursor}))
        lab.tap.faults.add(SIEM, lasting("status", status=400, body=body, headers=headers))
        result = lab.run()
        assert result.stats.outcome == "incomplete"
        assert not result.has_message("Lost")
        assert not lab.state().get("lost")
        lab.tap.faults.clear()
        for _ in range(3):
            lab.clock.step(hours=1)
            assert not lab.run().has_message("Lost")
        lab.run_until_done()
        assert once_each(lab)


def test_seven_days_of_unknown_400s_for_an_hour_lose_it_by_name_at_error_and_not_before() -> None:
    broken = (START - 3 * HOUR, START - 2 * HOUR)
    with open_lab(threats_every(30, since=START - 4 * HOUR, until=START), LOOKBACK_HOURS="4") as lab:
        lab.tap.faults.add(SIEM, lasting("status", status=400, body=b"Bad Request"), overlapping=broken)
        runs = [lab.run()]
        for _ in range(13):
            lab.clock.step(hours=12)
            runs.append(lab.run())
        assert not any(result.has_message("Lost interval") for result in runs)
        lab.clock.step(hours=12)
        lost = [line for line in lab.run().messages(logging.ERROR) if "Lost interval" in line]
        named = lab.state()["lost"]
        assert lost
        assert all(any(each["start"] in line for line in lost) for each in named)
        assert min(datetime.fromisoformat(each["start"]) for each in named) <= broken[0]
        assert max(datetime.fromisoformat(each["end"]) for each in named) >= broken[1]
        assert not lab.state().get("gaps")
