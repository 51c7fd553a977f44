"""Discovery, row by row: what the published function loses on the SIEM API, and every status of it."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest

from tap_forensics.errors import AuthenticationFailed
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.support.lab import SIEM, START, Lab, open_lab

ATTEMPTS = 3
# Halves of an hour, down to 56 s.
DOWN_TO_THE_SMALLEST = 6


def world_of_hours(hours: int, seed: int = 7) -> World:
    return World(seed, start=START - timedelta(hours=hours), end=START - timedelta(minutes=40), evidences=3)


def all_delivered_once(lab: Lab) -> bool:
    return dict(lab.delivered()) == dict.fromkeys(lab.truth(), 1)


UNUSABLE = [
    pytest.param(Fault("status", status=500), id="500"),
    pytest.param(Fault("status", status=502, reason=""), id="502 without a reason phrase"),
    pytest.param(Fault("status", status=503), id="503"),
    pytest.param(Fault("status", status=503, headers={"Retry-After": "soon, perhaps"}), id="odd Retry-After"),
    pytest.param(Fault("status", status=504), id="504"),
    pytest.param(Fault("status", status=404, body=b'{"message":"HTTP 404 Not Found"}'), id="404"),
    pytest.param(Fault("status", status=302, headers={"Location": "https://example.com/"}), id="302"),
    pytest.param(Fault("reset"), id="reset"),
    pytest.param(Fault("cut", after_bytes=40), id="cut"),
    pytest.param(Fault("body", body=b"<html>garbled"), id="not JSON"),
    pytest.param(Fault("body", body=b"[]"), id="a list"),
    pytest.param(Fault("body", body=b'{"messagesDelivered":"none"}'), id="a list that is a text"),
    pytest.param(Fault("body", body=b"[" * 10_000 + b"]" * 10_000), id="nested 10,000 deep"),
]


@pytest.mark.parametrize("fault", UNUSABLE)
def test_an_hour_that_cannot_be_read_becomes_a_gap_and_is_read_by_a_later_run(fault: Fault) -> None:
    with open_lab(world_of_hours(4), LOOKBACK_HOURS="4") as lab:
        # All of the second window, and nothing of the others.
        broken = (START - timedelta(minutes=180), START - timedelta(minutes=121))
        lab.tap.faults.add(SIEM, Fault(**{**vars(fault), "times": None}), overlapping=broken)
        first = lab.run().stats
        assert first.outcome == "incomplete"
        assert first.gaps == 1
        assert datetime.fromisoformat(lab.state()["last_event_time"]) > START - timedelta(hours=1)
        gap = lab.state()["gaps"][0]
        assert gap["start"] <= broken[0].isoformat().replace("+00:00", "Z")
        assert gap["end"] >= broken[1].isoformat().replace("+00:00", "Z")
        assert not all_delivered_once(lab)
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        second = lab.run().stats
        assert second.gaps == 0
        assert all_delivered_once(lab)


@pytest.mark.parametrize("fault", UNUSABLE)
def test_a_fault_that_passes_costs_nothing(fault: Fault) -> None:
    with open_lab(world_of_hours(2), LOOKBACK_HOURS="2") as lab:
        lab.tap.faults.add(SIEM, fault)
        lab.run_until_done()
        assert all_delivered_once(lab)


def test_three_hours_in_a_row_mean_that_the_api_is_down_and_the_windows_stay_open() -> None:
    with open_lab(world_of_hours(6), LOOKBACK_HOURS="6") as lab:
        lab.tap.faults.add(SIEM, Fault("status", times=None))
        result = lab.run()
        assert result.stats.outcome == "incomplete"
        assert len(lab.tap.calls_to(SIEM)) == 3 * ATTEMPTS + DOWN_TO_THE_SMALLEST
        assert result.has_message("seems to be down", logging.WARNING)
        tried = lab.state()["gaps"]
        assert [gap.get("attempts") for gap in tried[:3]] == [1, 1, 1]
        # Nothing was asked of the rest, so nothing is counted.
        assert "attempts" not in tried[-1]
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run()
        assert all_delivered_once(lab)


def test_an_api_that_was_down_before_is_asked_once_a_window_and_not_in_pieces() -> None:
    with open_lab(world_of_hours(6), LOOKBACK_HOURS="6") as lab:
        lab.tap.faults.add(SIEM, Fault("status", times=None))
        lab.run()
        for _ in range(4):
            lab.tap.forget_calls()
            lab.clock.step(hours=1)
            lab.run()
            assert len(lab.tap.calls_to(SIEM)) == 3
        lab.tap.faults.clear()
        lab.run_until_done()
        assert all_delivered_once(lab)


def test_three_hours_that_can_never_be_read_hold_back_the_later_ones_for_one_run_only() -> None:
    with open_lab(world_of_hours(8), LOOKBACK_HOURS="8") as lab:
        three = (START - timedelta(hours=8), START - timedelta(hours=5, minutes=30))
        lab.tap.faults.add(SIEM, Fault("status", times=None), overlapping=three)
        for _ in range(2):
            lab.run()
            lab.clock.step(minutes=5)
        assert all(gap["start"] < three[1].isoformat() for gap in lab.state()["gaps"])
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run_until_done()
        assert all_delivered_once(lab)


def test_a_429_is_waited_for_as_long_as_the_api_asks() -> None:
    with open_lab() as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=429, headers={"Retry-After": "120"}))
        before = lab.clock.now()
        result = lab.run()
        assert result.has_message("Rate limited (429). Retrying after 120s...", logging.WARNING)
        assert lab.clock.now() - before >= timedelta(seconds=120)
        assert all_delivered_once(lab)
        assert result.stats.siem_429s == 1


def test_a_lasting_429_leaves_the_windows_open_without_a_count_and_the_next_run_goes_on() -> None:
    with open_lab(world_of_hours(3), LOOKBACK_HOURS="3") as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=429, times=None))
        assert lab.run().stats.outcome == "incomplete"
        assert lab.state()["gaps"]
        assert not any("attempts" in gap for gap in lab.state()["gaps"])
        lab.tap.faults.clear()
        lab.run()
        assert all_delivered_once(lab)


@pytest.mark.parametrize(
    ("status", "words"), [(401, "TAP_PRINCIPAL or TAP_SECRET"), (403, "has no right to this API")]
)
def test_refused_credentials_fail_the_run_and_leave_its_windows_open(status: int, words: str) -> None:
    with open_lab(world_of_hours(3), LOOKBACK_HOURS="3") as lab:
        lab.run()
        lab.clock.step(hours=1)
        lab.tap.faults.add(SIEM, Fault("status", status=status, times=None))
        result = lab.run()
        assert isinstance(result.failure, AuthenticationFailed)
        assert result.has_message(words, logging.ERROR)
        after = lab.state()
        assert result.log.records[-1].__dict__["fields"]["run"]["cursor_lag_seconds"] > 3600
        assert "lease" not in after
        assert after["gaps"][-1]["end"] == after["last_event_time"]
        assert not any("attempts" in gap for gap in after["gaps"])
        lab.tap.faults.clear()
        lab.run()
        assert all_delivered_once(lab)


def test_any_other_400_leaves_the_window_open_without_a_word_of_its_body() -> None:
    with open_lab(world_of_hours(4), LOOKBACK_HOURS="4") as lab:
        broken = (START - timedelta(hours=3), START - timedelta(hours=3) + timedelta(seconds=1))
        lab.tap.faults.add(SIEM, Fault("status", status=400, body=b"no such thing\n<b>"), overlapping=broken)
        result = lab.run()
        messages = [
            line for line in result.messages(logging.WARNING) if "could not be read; will retry" in line
        ]
        assert len(messages) == 1
        assert messages[0].endswith("TAP answered 400: text (under 1 KiB), not shown")
        assert not result.has_message("Lost")
        (gap,) = lab.state()["gaps"]
        assert gap["attempts"] == 1
        lab.run()
        assert all_delivered_once(lab)


def test_odd_entries_are_counted_and_cost_neither_the_event_nor_the_window() -> None:
    with open_lab() as lab:
        entries: list[object] = [
            None,
            7,
            "text",
            [],
            {},
            {"threatID": None},
            {"threatID": 7},
            {"threatID": ""},
        ]
        good = {"threatId": "a" * 64, "campaignId": ["not", "a", "text"]}
        lab.world.add_event(
            "messagesBlocked",
            ["a" * 64],
            created=START - timedelta(minutes=10),
            body={"GUID": None, "threatsInfoMap": [*entries, good], "sender": ""},
        )
        result = lab.run()
        assert result.stats.odd_entries >= len(entries)
        assert lab.delivered()["a" * 64] == 1


def test_no_threats_found_is_said_and_the_backlog_is_worked_all_the_same() -> None:
    with open_lab(MAX_THREATS="4") as lab:
        lab.run()
        for _ in range(2):
            lab.clock.step(hours=3)
            result = lab.run()
        assert result.has_message("No threats found in the specified time window.")
        assert result.stats.threats_fetched == 2
        assert all_delivered_once(lab)
