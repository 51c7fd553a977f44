"""The edges of time on the SIEM API: now, seven days ago, and what is indexed late."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.http_messages import Request
from tap_forensics.sandbox.world import World
from tests.integration.faults.test_siem_faults import all_delivered_once, world_of_hours
from tests.support.lab import SIEM, START, open_lab
from tests.support.settings import STATE


def test_a_gap_older_than_the_api_keeps_is_named_at_error() -> None:
    with open_lab(world_of_hours(4), LOOKBACK_HOURS="4") as lab:
        broken = (START - timedelta(hours=3), START - timedelta(hours=3) + timedelta(seconds=1))
        lab.tap.faults.add(SIEM, Fault("status", times=None), overlapping=broken)
        lab.run()
        gap = lab.state()["gaps"][0]
        for _ in range(7):
            lab.clock.step(hours=23)
            lab.run()
        lab.clock.step(hours=7)
        result = lab.run()
        lost = [line for line in result.messages(logging.ERROR) if "Lost interval" in line]
        assert len(lost) == 1
        assert gap["start"] in lost[0]
        assert "gaps" not in lab.state()
        assert lab.state()["lost"][-1]["start"] == gap["start"]


def test_still_current_shortens_the_window_and_the_rest_is_read_later() -> None:
    with open_lab(world_of_hours(2), LOOKBACK_HOURS="2") as lab:
        now = lab.clock.now
        lab.tap.clock = lambda: now() - timedelta(minutes=10)
        result = lab.run()
        assert result.stats.gaps == 0
        cursor = datetime.fromisoformat(lab.state()["last_event_time"])
        assert START - timedelta(minutes=20) < cursor <= START - timedelta(minutes=10) + timedelta(seconds=5)
        lab.tap.clock = now
        lab.clock.step(hours=1)
        lab.run()
        assert all_delivered_once(lab)


def test_too_short_waits_for_the_next_run() -> None:
    with open_lab(world_of_hours(1)) as lab:
        words = b"The requested interval is too short. Requests must be for at least 30.00s of data"
        lab.tap.faults.add(SIEM, Fault("status", status=400, body=words))
        result = lab.run()
        assert result.stats.gaps == 0
        assert not result.has_message("Lost")
        lab.run()
        assert all_delivered_once(lab)


def test_too_far_into_the_past_is_asked_for_later_and_what_expires_is_named() -> None:
    with open_lab(world_of_hours(3), LOOKBACK_HOURS="168") as lab:
        now = lab.clock.now
        lab.tap.clock = lambda: now() + timedelta(minutes=12)
        result = lab.run()
        assert result.stats.gaps == 1
        (rest,) = lab.state()["gaps"]
        assert not result.has_message("Lost interval")
        assert all_delivered_once(lab)
        lab.clock.step(hours=1)
        result = lab.run()
        assert result.has_message(f"Lost interval {rest['start']}/{rest['end']}", logging.ERROR)
        assert result.stats.gaps == 0


def test_the_api_is_never_asked_for_what_it_refuses() -> None:
    with open_lab(world_of_hours(3), LOOKBACK_HOURS="168") as lab:
        for minutes in (0, 0.1, 1, 59, 61, 1440):
            lab.clock.step(minutes=minutes)
            lab.run()
        assert {call.status for call in lab.tap.calls_to(SIEM)} == {200}


def test_the_first_seven_days_are_read_in_one_run_at_a_second_an_answer() -> None:
    world = World(3, start=START - timedelta(days=7), end=START, messages_per_hour=1, clicks_per_hour=0)
    with open_lab(world, LOOKBACK_HOURS="168", MAX_THREATS="1000") as lab:

        def slow(request: Request) -> bool:
            if request.path == SIEM:
                lab.clock.sleep(1)
            return False

        lab.tap.faults.add(slow, Fault("status", times=None))
        result = lab.run()
        lab.tap.faults.clear()
        assert result.stats.windows == 168
        assert result.stats.cursor_lag_seconds is not None
        assert result.stats.cursor_lag_seconds < 600


def test_a_cursor_beyond_seven_days_is_capped_and_names_what_is_lost_at_error() -> None:
    with open_lab() as lab:
        lab.bucket.put(STATE, json.dumps({"last_event_time": "2026-02-20T10:00:00Z"}))
        result = lab.run()
        assert result.has_message("Warning: Lookback capped to 7 days (TAP API limit)", logging.ERROR)
        assert result.has_message("2026-02-20T10:00:00Z/2026-02-25T10:05:0", logging.ERROR)
        assert lab.state()["lost"][0]["start"] == "2026-02-20T10:00:00Z"


def test_events_indexed_half_an_hour_late_are_found() -> None:
    with open_lab() as lab:
        late = START - timedelta(minutes=2)
        lab.world.add_event(
            "messagesDelivered", ["f" * 64], created=late, indexed=late + timedelta(minutes=30)
        )
        lab.run()
        assert "f" * 64 not in lab.delivered()
        lab.clock.step(hours=1)
        lab.run()
        assert lab.delivered()["f" * 64] == 1
