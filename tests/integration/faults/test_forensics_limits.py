"""How much a run asks: 429 and limits, threats that came already, calls in flight, and the run's own time."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.integration.faults.test_forensics_faults import ONE, once_each, world_of
from tests.support.lab import FORENSICS, SIEM, START, Lab, open_lab


def test_a_429_is_waited_for_by_all_and_nothing_is_skipped() -> None:
    with open_lab() as lab:
        fault = Fault("status", status=429, headers={"Retry-After": "200"})
        lab.tap.faults.add(FORENSICS, fault)
        before = lab.clock.now()
        result = lab.run()
        assert result.messages().count("Rate limited (429). Retrying after 200s...") == 1
        assert lab.clock.now() - before >= timedelta(seconds=200)
        assert result.stats.outcome == "complete"
        assert once_each(lab)


def test_a_retry_after_as_a_date_is_obeyed() -> None:
    with open_lab(world_of(ONE)) as lab:
        at = (lab.clock.now() + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        lab.tap.faults.add(FORENSICS, Fault("status", status=429, headers={"Retry-After": at}))
        before = lab.clock.now()
        lab.run()
        assert lab.clock.now() - before >= timedelta(seconds=95)
        assert once_each(lab)


def test_nothing_but_429_ends_the_fan_out_cleanly_and_one_call_of_each_type_asks_again_an_hour_later() -> (
    None
):
    """Calls by threatId with the campaign's reports, and calls without them."""
    with open_lab() as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        first = lab.run()
        assert first.stats.outcome == "incomplete"
        assert first.stats.threats_left == 10
        assert first.messages().count("Rate limited (429). Retrying after 1s...") == 2
        assert first.messages().count("Rate limited (429). Retrying after 16s...") == 2
        calls = len(lab.tap.calls_to(FORENSICS))
        lab.clock.step(minutes=15)
        lab.run()
        assert len(lab.tap.calls_to(FORENSICS)) == calls
        lab.clock.step(minutes=45)
        lab.run()
        assert len(lab.tap.calls_to(FORENSICS)) == calls + 2
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run()
        assert once_each(lab)
        assert "limited_at" not in lab.state()["calls"]["forensics"]


def test_an_explicit_limit_overrides_what_429_taught() -> None:
    with open_lab() as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        lab.run()
        lab.tap.faults.clear()
        lab.clock.step(minutes=5)
        lab.run(TAP_FORENSICS_DAILY_LIMIT="1800")
        assert once_each(lab)


def test_the_configured_limit_is_kept_over_a_rolling_day_and_nothing_is_lost() -> None:
    with open_lab(TAP_FORENSICS_DAILY_LIMIT="4") as lab:
        lab.tap.quotas["forensics"].limit = 4
        for _ in range(3):
            lab.run()
            lab.clock.step(hours=12)
            lab.run()
            lab.clock.step(hours=12, minutes=11)
        assert once_each(lab)
        assert {call.status for call in lab.tap.calls_to(FORENSICS)} == {200}


def test_over_the_threat_limit_the_rest_is_carried_over_by_priority_and_age() -> None:
    world = world_of()
    for kind, digit in (("clicksBlocked", "3"), ("messagesDelivered", "2"), ("clicksPermitted", "1")):
        for age in (150, 50):
            name = f"{digit}{age:03}" + "0" * 60
            world.add_event(kind, [name], created=START - timedelta(minutes=age))
    with open_lab(world, LOOKBACK_HOURS="3", MAX_THREATS="2", FETCH_CONCURRENCY="1") as lab:
        result = lab.run()
        assert result.has_message("Reached max threats limit (2)")
        lab.run_until_done()
        order = [call.query["threatId"][:4] for call in lab.tap.calls_to(FORENSICS)]
        assert order == ["1150", "1050", "2150", "2050", "3150", "3050"]
        assert once_each(lab)


def see_again(lab: Lab) -> None:
    for threat_id in lab.world.threats:
        lab.world.add_event("clicksBlocked", [threat_id], created=lab.clock.now() - timedelta(minutes=10))


def test_the_same_threat_in_the_next_hour_is_not_fetched_again_within_dedup_hours() -> None:
    with open_lab() as lab:
        lab.run()
        for _ in range(3):
            lab.clock.step(hours=7)
            see_again(lab)
            lab.run()
        assert once_each(lab)
        lab.clock.step(hours=7)
        see_again(lab)
        lab.run()
        assert set(lab.delivered().values()) == {2}


def test_with_dedup_off_a_threat_still_counts_once_within_a_run() -> None:
    with open_lab(DEDUP_HOURS="0") as lab:
        lab.run()
        assert once_each(lab)
        lab.clock.step(minutes=20)
        lab.run()
        assert set(lab.delivered().values()) == {2}


def test_at_most_fetch_concurrency_calls_are_in_flight_and_each_threat_costs_one() -> None:
    with open_lab(World.from_threats(40, now=START, report_bytes=500)) as lab:
        lab.tap.latency_seconds = 0.05
        lab.run()
        calls = lab.tap.calls_to(FORENSICS)
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
    with open_lab(World.from_threats(60, now=START, report_bytes=500), RUN_BUDGET_SECONDS="5") as lab:
        lab.tap.faults.add(FORENSICS, fault)
        began = time.monotonic()
        result = lab.run()
        assert time.monotonic() - began < 5
        assert result.stats.outcome == "incomplete"
        assert result.stats.threats_left > 0
        lab.tap.faults.clear()
        lab.run(RUN_BUDGET_SECONDS="480")
        assert once_each(lab)


def test_an_endpoint_that_hangs_in_discovery_ends_the_run_in_time_too() -> None:
    with open_lab(RUN_BUDGET_SECONDS="5") as lab:
        lab.tap.faults.add(SIEM, Fault("hang", times=None))
        began = time.monotonic()
        result = lab.run()
        assert time.monotonic() - began < 5
        assert result.stats.outcome == "incomplete"
        lab.tap.faults.clear()
        lab.run()
        assert once_each(lab)


def test_twenty_failures_in_a_row_end_the_fan_out_and_spare_the_calls() -> None:
    with open_lab(World.from_threats(100, now=START, report_bytes=500)) as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", times=None))
        result = lab.run()
        assert result.has_message("20 threats in a row", logging.WARNING)
        assert len(lab.tap.calls_to(FORENSICS)) <= 3 * (20 + 8)
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run()
        assert once_each(lab)
