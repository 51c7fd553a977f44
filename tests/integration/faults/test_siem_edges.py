"""The edges of time on the SIEM API: now, seven days ago, and what is indexed late."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.http_messages import Request
from tap_forensics.sandbox.world import World
from tests.integration.faults.test_siem_faults import all_delivered_once, world_of_hours
from tests.support.lab import SIEM, START, STATE, lab


def test_a_gap_older_than_the_api_keeps_is_named_at_error() -> None:
    with lab(world_of_hours(4), LOOKBACK_HOURS="4") as the:
        broken = (START - timedelta(hours=3), START - timedelta(hours=3) + timedelta(seconds=1))
        the.tap.faults.add(SIEM, Fault("status", times=None), overlapping=broken)
        the.run()
        gap = the.state()["gaps"][0]
        for _ in range(7):
            the.time.advance(hours=23)
            the.run()
        the.time.advance(hours=7)
        ran = the.run()
        lost = [line for line in ran.said(logging.ERROR) if "Lost interval" in line]
        assert len(lost) == 1
        assert gap["start"] in lost[0]
        assert "gaps" not in the.state()
        assert the.state()["lost"][-1]["start"] == gap["start"]


def test_still_current_shortens_the_window_and_the_rest_is_read_later() -> None:
    with lab(world_of_hours(2), LOOKBACK_HOURS="2") as the:
        now = the.time.now
        the.tap.clock = lambda: now() - timedelta(minutes=10)
        ran = the.run()
        assert ran.good.gaps == 0
        cursor = datetime.fromisoformat(the.state()["last_event_time"])
        assert START - timedelta(minutes=20) < cursor <= START - timedelta(minutes=10) + timedelta(seconds=5)
        the.tap.clock = now
        the.time.advance(hours=1)
        the.run()
        assert all_delivered_once(the)


def test_too_short_waits_for_the_next_run() -> None:
    with lab(world_of_hours(1)) as the:
        words = b"The requested interval is too short. Requests must be for at least 30.00s of data"
        the.tap.faults.add(SIEM, Fault("status", status=400, body=words))
        ran = the.run()
        assert ran.good.gaps == 0
        assert not ran.says("Lost")
        the.run()
        assert all_delivered_once(the)


def test_too_far_into_the_past_is_asked_for_later_and_what_expires_is_named() -> None:
    with lab(world_of_hours(3), LOOKBACK_HOURS="168") as the:
        now = the.time.now
        the.tap.clock = lambda: now() + timedelta(minutes=12)
        ran = the.run()
        assert ran.good.gaps == 1
        (rest,) = the.state()["gaps"]
        assert not ran.says("Lost interval")
        assert all_delivered_once(the)
        the.time.advance(hours=1)
        ran = the.run()
        assert ran.says(f"Lost interval {rest['start']}/{rest['end']}", logging.ERROR)
        assert ran.good.gaps == 0


def test_the_api_is_never_asked_for_what_it_refuses() -> None:
    with lab(world_of_hours(3), LOOKBACK_HOURS="168") as the:
        for minutes in (0, 0.1, 1, 59, 61, 1440):
            the.time.advance(minutes=minutes)
            the.run()
        assert {call.status for call in the.tap.calls_to(SIEM)} == {200}


def test_the_first_seven_days_are_read_in_one_run_at_a_second_an_answer() -> None:
    world = World(3, start=START - timedelta(days=7), end=START, messages_per_hour=1, clicks_per_hour=0)
    with lab(world, LOOKBACK_HOURS="168", MAX_THREATS="1000") as the:

        def slow(request: Request) -> bool:
            if request.path == SIEM:
                the.time.sleep(1)
            return False

        the.tap.faults.add(slow, Fault("status", times=None))
        ran = the.run()
        the.tap.faults.clear()
        assert ran.good.windows == 168
        assert ran.good.cursor_lag_seconds is not None
        assert ran.good.cursor_lag_seconds < 600


def test_a_cursor_beyond_seven_days_is_capped_and_names_what_is_lost_at_error() -> None:
    with lab() as the:
        the.bucket.put(STATE, json.dumps({"last_event_time": "2026-02-20T10:00:00Z"}))
        ran = the.run()
        assert ran.says("Warning: Lookback capped to 7 days (TAP API limit)", logging.ERROR)
        assert ran.says("2026-02-20T10:00:00Z/2026-02-25T10:05:0", logging.ERROR)
        assert the.state()["lost"][0]["start"] == "2026-02-20T10:00:00Z"


def test_events_indexed_half_an_hour_late_are_found() -> None:
    with lab() as the:
        late = START - timedelta(minutes=2)
        the.world.add_event(
            "messagesDelivered", ["f" * 64], created=late, indexed=late + timedelta(minutes=30)
        )
        the.run()
        assert "f" * 64 not in the.delivered()
        the.time.advance(hours=1)
        the.run()
        assert the.delivered()["f" * 64] == 1
