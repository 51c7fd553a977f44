"""A working state that is missing, and going back and forth between this program and the published one."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from typing import Any

import pytest

from tap_forensics.errors import StateUnreadable
from tests.support.lab import HANDOVER, SIEM, START, STATE, Lab, Ran, lab
from tests.support.scenes import lasting, once_each, threats_every

HOUR = timedelta(hours=1)


def handed_over(the: Lab) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(the.bucket.get(HANDOVER))
    return document


def fails_and_touches_nothing(the: Lab) -> Ran:
    before = {name: the.bucket.generation(name) for name in the.bucket.names()}
    calls = len(the.tap.calls)
    ran = the.run()
    assert isinstance(ran.failure, StateUnreadable)
    assert ran.says("state repair", logging.ERROR)
    assert {name: the.bucket.generation(name) for name in the.bucket.names()} == before
    assert len(the.tap.calls) == calls
    return ran


def test_a_working_state_that_is_gone_fails_the_run_and_names_the_repair() -> None:
    with lab() as the:
        the.run()
        the.bucket.delete(STATE)
        the.time.advance(hours=1)
        ran = fails_and_touches_nothing(the)
        assert ran.says(STATE, logging.ERROR)


def test_our_mark_on_the_hand_over_object_is_enough() -> None:
    with lab() as the:
        document = {"last_event_time": (START - HOUR).isoformat(), "written_by": "tap-forensics"}
        the.bucket.put(HANDOVER, json.dumps(document))
        fails_and_touches_nothing(the)


def test_without_our_mark_it_is_the_published_function_s_and_is_taken_over_without_a_warning() -> None:
    with lab() as the:
        the.bucket.put(HANDOVER, json.dumps({"last_event_time": (START - HOUR).isoformat()}))
        ran = the.run()
        assert ran.good.outcome == "complete"
        assert not ran.says("twice")
        assert once_each(the)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version": 99}', b'{"last_event_time": "2999-01-01T00:00:00Z"}']
)
def test_nobody_is_told_to_delete_a_state_that_cannot_be_read(data: bytes) -> None:
    with lab() as the:
        the.bucket.put(STATE, data)
        ran = fails_and_touches_nothing(the)
        assert not ran.says("delete")
        assert the.bucket.get(STATE) == data


def test_the_hand_over_object_is_marked_and_carries_the_cursor_when_nothing_is_open() -> None:
    with lab() as the:
        the.run()
        assert "gaps" not in the.state()
        assert handed_over(the)["written_by"] == "tap-forensics"
        handed, cursor = handed_over(the)["last_event_time"], the.state()["last_event_time"]
        assert datetime.fromisoformat(handed) == datetime.fromisoformat(cursor)


def test_the_hand_over_object_carries_the_start_of_the_oldest_open_window() -> None:
    """So that going back to the published function loses nothing."""
    broken = (START - 4 * HOUR + HOUR / 4, START - 4 * HOUR + HOUR / 2)
    with lab(threats_every(30, since=START - 6 * HOUR, until=START), LOOKBACK_HOURS="6") as the:
        the.tap.faults.add(SIEM, lasting("status", status=503), overlapping=broken)
        for _ in range(3):
            the.run()
            oldest = min(datetime.fromisoformat(gap["start"]) for gap in the.state()["gaps"])
            assert oldest <= broken[0]
            assert datetime.fromisoformat(handed_over(the)["last_event_time"]) == oldest
            the.time.advance(hours=1)
        the.tap.faults.clear()
        the.time.advance(hours=6)
        the.run_until_done()
        cursor = datetime.fromisoformat(the.state()["last_event_time"])
        assert datetime.fromisoformat(handed_over(the)["last_event_time"]) == cursor


def the_published_function_runs(the: Lab) -> None:
    """It keeps nothing of what it does not know, and goes on to now."""
    moment = (the.tap.clock() - timedelta(seconds=60)).isoformat()
    the.bucket.put(HANDOVER, json.dumps({"last_event_time": moment}))


def test_coming_back_from_the_published_function_warns_that_threats_may_come_twice() -> None:
    with lab() as the:
        the.run()
        the.time.advance(hours=3)
        the_published_function_runs(the)
        the.time.advance(hours=1)
        ran = the.run()
        assert ran.good.outcome == "complete"
        assert any("twice" in line for line in ran.said(logging.WARNING))
        # Once: from then on the object is ours again.
        assert handed_over(the)["written_by"] == "tap-forensics"
        the.time.advance(hours=1)
        assert not the.run().says("twice")


def test_runs_one_after_the_other_say_nothing_of_the_kind() -> None:
    with lab() as the:
        for _ in range(3):
            assert not the.run().says("twice")
            the.time.advance(hours=1)
