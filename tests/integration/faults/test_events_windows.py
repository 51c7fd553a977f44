"""Windows that shrink under load, and the table of answers, on the stream of events."""

from __future__ import annotations

import gzip
import logging
from collections import Counter
from datetime import datetime, timedelta

import pytest

from tap_forensics.errors import AuthenticationFailed
from tap_forensics.sandbox.faults import Fault, overlaps
from tap_forensics.sandbox.http_messages import Request
from tap_forensics.sandbox.world import World
from tests.support.events_lab import EVENTS, event_lines
from tests.support.lab import SIEM, START, Lab, open_lab

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
POLLS_A_DAY = 288
CALLS_A_DAY = 1800
BROKEN = Fault("status", status=500, times=None)


def a_minute_each(minutes: int) -> World:
    """One event in each of the last minutes; its id is how many minutes ago."""
    world = World(1, start=START - timedelta(hours=8), end=START, messages_per_hour=0, clicks_per_hour=0)
    for ago in range(2, minutes):
        world.add_event("clicksBlocked", created=START - ago * MINUTE - SECOND, body={"id": str(ago)})
    return world


def ids(lab: Lab) -> Counter[str]:
    return Counter(event["id"] for event in event_lines(lab))


def once(minutes: int = 59) -> dict[str, int]:
    return {str(ago): 1 for ago in range(2, minutes)}


def length(request: Request) -> timedelta:
    start, end = (datetime.fromisoformat(part) for part in request.query["interval"].split("/"))
    return end - start


@pytest.mark.parametrize("status", [500, 503])
def test_one_heavy_minute_costs_a_minute_and_not_an_hour(status: int) -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        heavy = (START - 30 * MINUTE, START - 30 * MINUTE + SECOND)
        lab.tap.faults.add(SIEM, Fault("status", status=status, times=None), overlapping=heavy)
        stats = lab.run().stats
        assert stats.gaps == 1
        (gap,) = lab.state()["gaps"]
        seconds = datetime.fromisoformat(gap["end"]) - datetime.fromisoformat(gap["start"])
        assert timedelta(seconds=30) <= seconds < timedelta(seconds=60)
        assert len(ids(lab)) >= 55
        assert 0 < stats.extra_calls <= 14
        lab.tap.faults.clear()
        lab.clock.step(minutes=5)
        assert lab.run().stats.gaps == 0
        assert ids(lab) == once()


def test_a_quota_without_calls_for_the_halves_costs_half_an_hour_at_most() -> None:
    """A limit of twelve leaves one call a run for what failed: never both the whole window and a half."""
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        lab.env["TAP_SIEM_DAILY_LIMIT"] = "12"
        heavy = (START - 50 * MINUTE, START - 50 * MINUTE + SECOND)
        lab.tap.faults.add(SIEM, BROKEN, overlapping=heavy)
        for _ in range(6):
            lab.run()
            lab.clock.step(hours=1)
        assert ids(lab).keys() >= {str(ago) for ago in range(2, 29)}
        assert max(ids(lab).values()) == 1


def test_an_answer_too_large_for_memory_is_asked_for_in_halves_and_all_of_it_is_read() -> None:
    heavy = gzip.compress(b'{"messagesBlocked":[' + b"0," * 3_000_000 + b"0]}")
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        fault = Fault("body", body=heavy, headers={"Content-Encoding": "gzip"}, times=None)
        lab.tap.faults.add(lambda request: length(request) > 8 * MINUTE, fault)
        stats = lab.run().stats
        assert stats.gaps == 0
        assert ids(lab) == once()
        # The whole hour once: asked again it would be as large.
        assert len(lab.tap.calls_to(SIEM)) == 1 + stats.extra_calls > 1


def test_what_is_too_much_for_the_api_is_asked_for_in_pieces_that_it_can_answer() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        lab.tap.faults.add(lambda request: length(request) > 8 * MINUTE, BROKEN)
        assert lab.run().stats.gaps == 0
        assert ids(lab) == once()


def test_a_gap_is_read_in_halves_too() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        lab.tap.faults.add(SIEM, Fault("reset", times=3))
        assert lab.run().stats.gaps == 1
        lab.clock.step(minutes=5)
        lab.tap.faults.clear()
        lab.tap.faults.add(lambda request: length(request) > 20 * MINUTE, BROKEN)
        assert lab.run().stats.gaps == 0
        assert ids(lab) == once()


def test_at_most_sixty_extra_calls_are_made_in_a_run() -> None:
    with open_lab(a_minute_each(239), EVENTS_PREFIX=EVENTS, FORENSICS="off", LOOKBACK_HOURS="4") as lab:
        every_third = [START - ago * 3 * MINUTE for ago in range(80)]

        def heavy(request: Request) -> bool:
            return any(overlaps(request.query["interval"], (at, at + SECOND)) for at in every_third)

        lab.tap.faults.add(heavy, BROKEN)
        assert lab.run().stats.extra_calls == 60
        lab.tap.faults.clear()
        for _ in range(3):
            lab.clock.step(hours=1)
            lab.run()
        assert ids(lab) == once(239)


def test_an_api_that_answers_nothing_costs_six_extra_calls_and_then_at_most_three_a_run() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        lab.tap.faults.add(SIEM, BROKEN)
        assert lab.run().stats.siem_calls == 3 + 6
        for _ in range(6):
            lab.clock.step(minutes=5)
            result = lab.run()
            # What is new, and what failed before: three windows without an answer end it.
            assert 1 <= result.stats.siem_calls <= 3
            assert result.has_message("could not be read; will retry", logging.WARNING)
        lab.tap.faults.clear()
        # The oldest waits for an hour after its third failing run.
        lab.clock.step(hours=1)
        assert lab.run().stats.outcome == "complete"
        assert ids(lab) == once()


def test_minutes_that_can_never_be_read_leave_a_day_of_polls_within_its_calls() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        for ago in (10, 40):
            heavy = (START - ago * MINUTE, START - ago * MINUTE + SECOND)
            lab.tap.faults.add(SIEM, BROKEN, overlapping=heavy)
        for _ in range(36):
            lab.run()
            lab.clock.step(minutes=5)
        assert len(lab.tap.calls_to(SIEM)) * POLLS_A_DAY / 36 < CALLS_A_DAY
        assert len(lab.state()["gaps"]) == 2


def test_polled_every_five_minutes_a_quiet_day_costs_two_calls_a_poll() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        for _ in range(13):
            lab.run()
            lab.clock.step(minutes=5)
        assert len(lab.tap.calls_to(SIEM)) <= 2 * 13
        assert 2 * POLLS_A_DAY < CALLS_A_DAY


def test_an_hour_that_uses_the_time_up_becomes_a_gap_and_does_not_hold_back_the_rest() -> None:
    with open_lab(a_minute_each(119), EVENTS_PREFIX=EVENTS, FORENSICS="off", LOOKBACK_HOURS="2") as lab:
        heavy = (START - 70 * MINUTE, START - 70 * MINUTE + SECOND)

        def slow(request: Request) -> bool:
            met = overlaps(request.query["interval"], heavy)
            if met:
                lab.clock.sleep(60)
            return met

        lab.tap.faults.add(slow, Fault("status", status=504, times=None))
        for _ in range(3):
            lab.run()
            lab.clock.step(minutes=5)
        assert once(59).items() <= ids(lab).items()
        assert lab.state()["last_event_time"] > START.isoformat()
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run()
        assert ids(lab) == once(119)


# The second system's table of answers, row by row.


def test_200_all_events_come_enriched_and_the_checkpoint_moves() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as lab:
        lab.run()
        assert ids(lab) == once()
        assert {event["_eventType"] for event in event_lines(lab)} == {"clicksBlocked"}
        assert lab.state()["last_event_time"] > (START - 2 * MINUTE).isoformat()


def test_400_still_current_brings_a_shorter_end_and_the_rest_later() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as lab:
        now = lab.clock.now
        lab.tap.clock = lambda: now() - 10 * MINUTE
        assert lab.run().stats.lost_intervals == 0
        assert 40 < len(ids(lab)) < 57
        lab.tap.clock = now
        lab.clock.step(minutes=5)
        lab.run()
        assert ids(lab) == once()


def test_400_too_short_waits() -> None:
    words = b"The requested interval is too short. Requests must be for at least 30.00s of data"
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=400, body=words))
        assert not lab.run().has_message("Lost")
        assert event_lines(lab) == []
        lab.run()
        assert ids(lab) == once()


def test_400_too_far_is_clamped() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, LOOKBACK_HOURS="168") as lab:
        now = lab.clock.now
        lab.tap.clock = lambda: now() + timedelta(minutes=12)
        lab.run()
        assert ids(lab) == once()
        lab.clock.step(minutes=30)
        assert lab.run().has_message("Lost interval", logging.ERROR)


def test_any_other_400_leaves_the_window_open_and_nothing_gets_stuck() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=400, body=b"no such thing"))
        assert lab.run().has_message("TAP answered 400: text (under 1 KiB), not shown", logging.WARNING)
        assert lab.state()["gaps"]
        lab.run()
        assert ids(lab) == once()


@pytest.mark.parametrize("status", [401, 403])
def test_401_and_403_name_the_variable_and_leave_the_windows_open(status: int) -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=status))
        result = lab.run()
        assert isinstance(result.failure, AuthenticationFailed)
        assert result.has_message("TAP_PRINCIPAL", logging.ERROR)
        assert lab.state()["gaps"]
        lab.run()
        assert ids(lab) == once()


def test_429_is_waited_for_and_no_event_is_lost() -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=429, times=2))
        assert lab.run().has_message("Rate limited (429)", logging.WARNING)
        assert ids(lab) == once()


# Three times the hour, then its first half and its halves; the sixth is as short as can be.
@pytest.mark.parametrize(("failures", "gaps"), [(3 + 5, 0), (3 + 6, 1)])
def test_500_is_retried_then_halved_then_a_gap_that_later_runs_try_again(failures: int, gaps: int) -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=500, times=failures))
        assert lab.run().stats.gaps == gaps
        lab.clock.step(minutes=5)
        assert lab.run().stats.gaps == 0
        assert ids(lab) == once()


@pytest.mark.parametrize("status", [302, 404, 418])
def test_any_other_status_is_logged_without_its_body_and_kept_as_a_gap(status: int) -> None:
    with open_lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=status, body=b"teapot " * 200))
        result = lab.run()
        assert result.has_message(f"TAP answered {status}: text (about 1 KiB), not shown", logging.WARNING)
        assert max(map(len, result.messages())) < 1000
        assert result.stats.gaps == 1
        lab.clock.step(minutes=5)
        lab.run()
        assert ids(lab) == once()
