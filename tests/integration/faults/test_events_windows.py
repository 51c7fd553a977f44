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
from tests.support.lab import SIEM, START, Lab, lab

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


def ids(the: Lab) -> Counter[str]:
    return Counter(event["id"] for event in event_lines(the))


def once(minutes: int = 59) -> dict[str, int]:
    return {str(ago): 1 for ago in range(2, minutes)}


def length(request: Request) -> timedelta:
    start, end = (datetime.fromisoformat(part) for part in request.query["interval"].split("/"))
    return end - start


@pytest.mark.parametrize("status", [500, 503])
def test_one_heavy_minute_costs_a_minute_and_not_an_hour(status: int) -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        heavy = (START - 30 * MINUTE, START - 30 * MINUTE + SECOND)
        the.tap.faults.add(SIEM, Fault("status", status=status, times=None), overlapping=heavy)
        stats = the.run().good
        assert stats.gaps == 1
        (gap,) = the.state()["gaps"]
        seconds = datetime.fromisoformat(gap["end"]) - datetime.fromisoformat(gap["start"])
        assert timedelta(seconds=30) <= seconds < timedelta(seconds=60)
        assert len(ids(the)) >= 55
        assert 0 < stats.extra_calls <= 14
        the.tap.faults.clear()
        the.time.advance(minutes=5)
        assert the.run().good.gaps == 0
        assert ids(the) == once()


def test_an_answer_too_large_for_memory_is_asked_for_in_halves_and_all_of_it_is_read() -> None:
    heavy = gzip.compress(b'{"messagesBlocked":[' + b"0," * 3_000_000 + b"0]}")
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        fault = Fault("body", body=heavy, headers={"Content-Encoding": "gzip"}, times=None)
        the.tap.faults.add(lambda request: length(request) > 8 * MINUTE, fault)
        stats = the.run().good
        assert stats.gaps == 0
        assert ids(the) == once()
        # The whole hour once: asked again it would be as large.
        assert len(the.tap.calls_to(SIEM)) == 1 + stats.extra_calls > 1


def test_what_is_too_much_for_the_api_is_asked_for_in_pieces_that_it_can_answer() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        the.tap.faults.add(lambda request: length(request) > 8 * MINUTE, BROKEN)
        assert the.run().good.gaps == 0
        assert ids(the) == once()


def test_a_gap_is_read_in_halves_too() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        the.tap.faults.add(SIEM, Fault("reset", times=3))
        assert the.run().good.gaps == 1
        the.time.advance(minutes=5)
        the.tap.faults.clear()
        the.tap.faults.add(lambda request: length(request) > 20 * MINUTE, BROKEN)
        assert the.run().good.gaps == 0
        assert ids(the) == once()


def test_at_most_sixty_extra_calls_are_made_in_a_run() -> None:
    with lab(a_minute_each(239), EVENTS_PREFIX=EVENTS, FORENSICS="off", LOOKBACK_HOURS="4") as the:
        every_third = [START - ago * 3 * MINUTE for ago in range(80)]

        def heavy(request: Request) -> bool:
            return any(overlaps(request.query["interval"], (at, at + SECOND)) for at in every_third)

        the.tap.faults.add(heavy, BROKEN)
        assert the.run().good.extra_calls == 60
        the.tap.faults.clear()
        for _ in range(3):
            the.time.advance(hours=1)
            the.run()
        assert ids(the) == once(239)


def test_an_api_that_answers_nothing_costs_six_extra_calls_and_then_at_most_three_a_run() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        the.tap.faults.add(SIEM, BROKEN)
        assert the.run().good.siem_calls == 3 + 6
        for _ in range(6):
            the.time.advance(minutes=5)
            ran = the.run()
            # What is new, and what failed before: three windows without an answer end it.
            assert 1 <= ran.good.siem_calls <= 3
            assert ran.says("could not be read; will retry", logging.WARNING)
        the.tap.faults.clear()
        # The oldest waits for an hour after its third failing run.
        the.time.advance(hours=1)
        assert the.run().good.outcome == "complete"
        assert ids(the) == once()


def test_minutes_that_can_never_be_read_leave_a_day_of_polls_within_its_calls() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        for ago in (10, 40):
            heavy = (START - ago * MINUTE, START - ago * MINUTE + SECOND)
            the.tap.faults.add(SIEM, BROKEN, overlapping=heavy)
        for _ in range(36):
            the.run()
            the.time.advance(minutes=5)
        assert len(the.tap.calls_to(SIEM)) * POLLS_A_DAY / 36 < CALLS_A_DAY
        assert len(the.state()["gaps"]) == 2


def test_polled_every_five_minutes_a_quiet_day_costs_two_calls_a_poll() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        for _ in range(13):
            the.run()
            the.time.advance(minutes=5)
        assert len(the.tap.calls_to(SIEM)) <= 2 * 13
        assert 2 * POLLS_A_DAY < CALLS_A_DAY


def test_an_hour_that_uses_the_time_up_becomes_a_gap_and_does_not_hold_back_the_rest() -> None:
    with lab(a_minute_each(119), EVENTS_PREFIX=EVENTS, FORENSICS="off", LOOKBACK_HOURS="2") as the:
        heavy = (START - 70 * MINUTE, START - 70 * MINUTE + SECOND)

        def slow(request: Request) -> bool:
            met = overlaps(request.query["interval"], heavy)
            if met:
                the.time.sleep(60)
            return met

        the.tap.faults.add(slow, Fault("status", status=504, times=None))
        for _ in range(3):
            the.run()
            the.time.advance(minutes=5)
        assert once(59).items() <= ids(the).items()
        assert the.state()["last_event_time"] > START.isoformat()
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run()
        assert ids(the) == once(119)


# The second system's table of answers, row by row.


def test_200_all_events_come_enriched_and_the_checkpoint_moves() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as the:
        the.run()
        assert ids(the) == once()
        assert {event["_eventType"] for event in event_lines(the)} == {"clicksBlocked"}
        assert the.state()["last_event_time"] > (START - 2 * MINUTE).isoformat()


def test_400_still_current_brings_a_shorter_end_and_the_rest_later() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as the:
        now = the.time.now
        the.tap.clock = lambda: now() - 10 * MINUTE
        assert the.run().good.lost_intervals == 0
        assert 40 < len(ids(the)) < 57
        the.tap.clock = now
        the.time.advance(minutes=5)
        the.run()
        assert ids(the) == once()


def test_400_too_short_waits() -> None:
    words = b"The requested interval is too short. Requests must be for at least 30.00s of data"
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as the:
        the.tap.faults.add(SIEM, Fault("status", status=400, body=words))
        assert not the.run().says("Lost")
        assert event_lines(the) == []
        the.run()
        assert ids(the) == once()


def test_400_too_far_is_clamped() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS, LOOKBACK_HOURS="168") as the:
        now = the.time.now
        the.tap.clock = lambda: now() + timedelta(minutes=12)
        the.run()
        assert ids(the) == once()
        the.time.advance(minutes=30)
        assert the.run().says("Lost interval", logging.ERROR)


def test_any_other_400_leaves_the_window_open_and_nothing_gets_stuck() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as the:
        the.tap.faults.add(SIEM, Fault("status", status=400, body=b"no such thing"))
        assert the.run().says("TAP answered 400: text (under 1 KiB), not shown", logging.WARNING)
        assert the.state()["gaps"]
        the.run()
        assert ids(the) == once()


@pytest.mark.parametrize("status", [401, 403])
def test_401_and_403_name_the_variable_and_leave_the_windows_open(status: int) -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as the:
        the.tap.faults.add(SIEM, Fault("status", status=status))
        ran = the.run()
        assert isinstance(ran.failure, AuthenticationFailed)
        assert ran.says("TAP_PRINCIPAL", logging.ERROR)
        assert the.state()["gaps"]
        the.run()
        assert ids(the) == once()


def test_429_is_waited_for_and_no_event_is_lost() -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as the:
        the.tap.faults.add(SIEM, Fault("status", status=429, times=2))
        assert the.run().says("Rate limited (429)", logging.WARNING)
        assert ids(the) == once()


# Three times the hour, then its first half and its halves; the sixth is as short as can be.
@pytest.mark.parametrize(("failures", "gaps"), [(3 + 5, 0), (3 + 6, 1)])
def test_500_is_retried_then_halved_then_a_gap_that_later_runs_try_again(failures: int, gaps: int) -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as the:
        the.tap.faults.add(SIEM, Fault("status", status=500, times=failures))
        assert the.run().good.gaps == gaps
        the.time.advance(minutes=5)
        assert the.run().good.gaps == 0
        assert ids(the) == once()


@pytest.mark.parametrize("status", [302, 404, 418])
def test_any_other_status_is_logged_without_its_body_and_kept_as_a_gap(status: int) -> None:
    with lab(a_minute_each(59), EVENTS_PREFIX=EVENTS) as the:
        the.tap.faults.add(SIEM, Fault("status", status=status, body=b"teapot " * 200))
        ran = the.run()
        assert ran.says(f"TAP answered {status}: text (about 1 KiB), not shown", logging.WARNING)
        assert max(map(len, ran.said())) < 1000
        assert ran.good.gaps == 1
        the.time.advance(minutes=5)
        the.run()
        assert ids(the) == once()
