"""A working state that is missing, and going back and forth between this program and the published one."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from typing import Any

import pytest

from tap_forensics.errors import StateUnreadable
from tests.support.lab import SIEM, START, Lab, RunResult, open_lab
from tests.support.scenes import lasting, once_each, threats_every
from tests.support.settings import HANDOVER, STATE

HOUR = timedelta(hours=1)


def handed_over(lab: Lab) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(lab.bucket.get(HANDOVER))
    return document


def fails_and_touches_nothing(lab: Lab) -> RunResult:
    before = {name: lab.bucket.generation(name) for name in lab.bucket.names()}
    calls = len(lab.tap.calls)
    result = lab.run()
    assert isinstance(result.failure, StateUnreadable)
    assert result.has_message("state repair", logging.ERROR)
    assert {name: lab.bucket.generation(name) for name in lab.bucket.names()} == before
    assert len(lab.tap.calls) == calls
    return result


def test_a_working_state_that_is_gone_fails_the_run_and_names_the_repair() -> None:
    with open_lab() as lab:
        lab.run()
        lab.bucket.delete(STATE)
        lab.clock.step(hours=1)
        result = fails_and_touches_nothing(lab)
        assert result.has_message(STATE, logging.ERROR)


@pytest.mark.parametrize("key", ["state/outside.json", "tap-forensics/state.json"])
def test_old_versions_of_a_working_state_are_enough(key: str) -> None:
    """As in a bucket of the Terraform module and the quick start, whose state has no hand-over object."""
    with open_lab(STATE_KEY=key) as lab:
        lab.bucket.keep_versions()
        lab.run()
        for name in lab.bucket.names():
            if name.endswith(".json"):
                lab.bucket.delete(name)
        lab.clock.step(hours=1)
        fails_and_touches_nothing(lab)


def test_our_mark_on_the_hand_over_object_is_enough() -> None:
    with open_lab() as lab:
        document = {"last_event_time": (START - HOUR).isoformat(), "written_by": "tap-forensics"}
        lab.bucket.put(HANDOVER, json.dumps(document))
        fails_and_touches_nothing(lab)


def test_without_our_mark_it_is_the_published_function_s_and_is_taken_over_without_a_warning() -> None:
    with open_lab() as lab:
        lab.bucket.put(HANDOVER, json.dumps({"last_event_time": (START - HOUR).isoformat()}))
        result = lab.run()
        assert result.stats.outcome == "complete"
        assert not result.has_message("twice")
        assert once_each(lab)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version": 99}', b'{"last_event_time": "2999-01-01T00:00:00Z"}']
)
def test_nobody_is_told_to_delete_a_state_that_cannot_be_read(data: bytes) -> None:
    with open_lab() as lab:
        lab.bucket.put(STATE, data)
        result = fails_and_touches_nothing(lab)
        assert not result.has_message("delete")
        assert lab.bucket.get(STATE) == data


def test_the_hand_over_object_is_marked_and_carries_the_cursor_when_nothing_is_open() -> None:
    with open_lab() as lab:
        lab.run()
        assert "gaps" not in lab.state()
        assert handed_over(lab)["written_by"] == "tap-forensics"
        handed, cursor = handed_over(lab)["last_event_time"], lab.state()["last_event_time"]
        assert datetime.fromisoformat(handed) == datetime.fromisoformat(cursor)


def test_the_hand_over_object_carries_the_start_of_the_oldest_open_window() -> None:
    """So that going back to the published function loses nothing."""
    broken = (START - 4 * HOUR + HOUR / 4, START - 4 * HOUR + HOUR / 2)
    with open_lab(threats_every(30, since=START - 6 * HOUR, until=START), LOOKBACK_HOURS="6") as lab:
        lab.tap.faults.add(SIEM, lasting("status", status=503), overlapping=broken)
        for _ in range(3):
            lab.run()
            oldest = min(datetime.fromisoformat(gap["start"]) for gap in lab.state()["gaps"])
            assert oldest <= broken[0]
            assert datetime.fromisoformat(handed_over(lab)["last_event_time"]) == oldest
            lab.clock.step(hours=1)
        lab.tap.faults.clear()
        lab.clock.step(hours=6)
        lab.run_until_done()
        cursor = datetime.fromisoformat(lab.state()["last_event_time"])
        assert datetime.fromisoformat(handed_over(lab)["last_event_time"]) == cursor


def the_published_function_runs(lab: Lab) -> None:
    """It keeps nothing of what it does not know, and goes on to now."""
    moment = (lab.tap.clock() - timedelta(seconds=60)).isoformat()
    lab.bucket.put(HANDOVER, json.dumps({"last_event_time": moment}))


def test_coming_back_from_the_published_function_warns_that_threats_may_come_twice() -> None:
    with open_lab() as lab:
        lab.run()
        lab.clock.step(hours=3)
        the_published_function_runs(lab)
        lab.clock.step(hours=1)
        result = lab.run()
        assert result.stats.outcome == "complete"
        assert any("twice" in line for line in result.messages(logging.WARNING))
        # Once: from then on the object is ours again.
        assert handed_over(lab)["written_by"] == "tap-forensics"
        lab.clock.step(hours=1)
        assert not lab.run().has_message("twice")


def test_runs_one_after_the_other_say_nothing_of_the_kind() -> None:
    with open_lab() as lab:
        for _ in range(3):
            assert not lab.run().has_message("twice")
            lab.clock.step(hours=1)
