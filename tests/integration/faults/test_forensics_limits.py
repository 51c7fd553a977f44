"""How much a run asks: 429 and limits, threats that came already, calls in flight, and the run's own time."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.integration.faults.test_forensics_faults import ONE, once_each, world_of
from tests.support.lab import FORENSICS, SIEM, START, Lab, lab


def test_a_429_is_waited_for_by_all_and_nothing_is_skipped() -> None:
    with lab() as the:
        fault = Fault("status", status=429, headers={"Retry-After": "200"})
        the.tap.faults.add(FORENSICS, fault)
        before = the.time.now()
        ran = the.run()
        assert ran.said().count("Rate limited (429). Retrying after 200s...") == 1
        assert the.time.now() - before >= timedelta(seconds=200)
        assert ran.good.outcome == "complete"
        assert once_each(the)


def test_a_retry_after_as_a_date_is_obeyed() -> None:
    with lab(world_of(ONE)) as the:
        at = (the.time.now() + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        the.tap.faults.add(FORENSICS, Fault("status", status=429, headers={"Retry-After": at}))
        before = the.time.now()
        the.run()
        assert the.time.now() - before >= timedelta(seconds=95)
        assert once_each(the)


def test_nothing_but_429_ends_the_fan_out_cleanly_and_one_call_asks_again_an_hour_later() -> None:
    with lab() as the:
        the.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        first = the.run()
        assert first.good.outcome == "incomplete"
        assert first.good.threats_left == 10
        assert first.said().count("Rate limited (429). Retrying after 1s...") == 1
        assert first.said().count("Rate limited (429). Retrying after 16s...") == 1
        calls = len(the.tap.calls_to(FORENSICS))
        the.time.advance(minutes=15)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == calls
        the.time.advance(minutes=45)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == calls + 1
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)
        assert "limited_at" not in the.state()["calls"]["forensics"]


def test_an_explicit_limit_overrides_what_429_taught() -> None:
    with lab() as the:
        the.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        the.run()
        the.tap.faults.clear()
        the.time.advance(minutes=5)
        the.run(TAP_FORENSICS_DAILY_LIMIT="1800")
        assert once_each(the)


def test_the_configured_limit_is_kept_over_a_rolling_day_and_nothing_is_lost() -> None:
    with lab(TAP_FORENSICS_DAILY_LIMIT="4") as the:
        the.tap.quotas["forensics_threat"].limit = 4
        for _ in range(3):
            the.run()
            the.time.advance(hours=12)
            the.run()
            the.time.advance(hours=12, minutes=11)
        assert once_each(the)
        assert {call.status for call in the.tap.calls_to(FORENSICS)} == {200}


def test_over_the_threat_limit_the_rest_is_carried_over_by_priority_and_age() -> None:
    world = world_of()
    for kind, digit in (("clicksBlocked", "3"), ("messagesDelivered", "2"), ("clicksPermitted", "1")):
        for age in (150, 50):
            name = f"{digit}{age:03}" + "0" * 60
            world.add_event(kind, [name], created=START - timedelta(minutes=age))
    with lab(world, LOOKBACK_HOURS="3", MAX_THREATS="2", FETCH_CONCURRENCY="1") as the:
        ran = the.run()
        assert ran.says("Reached max threats limit (2)")
        the.run_until_done()
        order = [call.query["threatId"][:4] for call in the.tap.calls_to(FORENSICS)]
        assert order == ["1150", "1050", "2150", "2050", "3150", "3050"]
        assert once_each(the)


def see_again(the: Lab) -> None:
    for threat_id in the.world.threats:
        the.world.add_event("clicksBlocked", [threat_id], created=the.time.now() - timedelta(minutes=10))


def test_the_same_threat_in_the_next_hour_is_not_fetched_again_within_dedup_hours() -> None:
    with lab() as the:
        the.run()
        for _ in range(3):
            the.time.advance(hours=7)
            see_again(the)
            the.run()
        assert once_each(the)
        the.time.advance(hours=7)
        see_again(the)
        the.run()
        assert set(the.delivered().values()) == {2}


def test_with_dedup_off_a_threat_still_counts_once_within_a_run() -> None:
    with lab(DEDUP_HOURS="0") as the:
        the.run()
        assert once_each(the)
        the.time.advance(minutes=20)
        the.run()
        assert set(the.delivered().values()) == {2}


def test_at_most_fetch_concurrency_calls_are_in_flight_and_each_threat_costs_one() -> None:
    with lab(World.from_threats(40, now=START, report_bytes=500)) as the:
        the.tap.latency_seconds = 0.05
        the.run()
        calls = the.tap.calls_to(FORENSICS)
        assert len(calls) == 40
        assert max(call.in_flight for call in calls) == 8


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("delay", times=None, delay_seconds=0.6), id="slow"),
        pytest.param(Fault("hang", times=None), id="hang"),
        pytest.param(Fault("drip", times=None, delay_seconds=0.2, chunk_bytes=1), id="drip"),
        pytest.param(Fault("drip_headers", times=None, delay_seconds=0.2), id="drip of the head"),
    ],
)
def test_a_run_that_cannot_finish_stops_by_itself_and_the_next_goes_on(fault: Fault) -> None:
    with lab(World.from_threats(60, now=START, report_bytes=500), RUN_BUDGET_SECONDS="5") as the:
        the.tap.faults.add(FORENSICS, fault)
        began = time.monotonic()
        ran = the.run()
        assert time.monotonic() - began < 5
        assert ran.good.outcome == "incomplete"
        assert ran.good.threats_left > 0
        the.tap.faults.clear()
        the.run(RUN_BUDGET_SECONDS="480")
        assert once_each(the)


def test_an_endpoint_that_hangs_in_discovery_ends_the_run_in_time_too() -> None:
    with lab(RUN_BUDGET_SECONDS="5") as the:
        the.tap.faults.add(SIEM, Fault("hang", times=None))
        began = time.monotonic()
        ran = the.run()
        assert time.monotonic() - began < 5
        assert ran.good.outcome == "incomplete"
        the.tap.faults.clear()
        the.run()
        assert once_each(the)


def test_twenty_failures_in_a_row_end_the_fan_out_and_spare_the_calls() -> None:
    with lab(World.from_threats(100, now=START, report_bytes=500)) as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=None))
        ran = the.run()
        assert ran.says("20 threats in a row", logging.WARNING)
        assert len(the.tap.calls_to(FORENSICS)) <= 3 * (20 + 8)
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)
