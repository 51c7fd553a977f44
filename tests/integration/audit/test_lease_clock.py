"""The lease goes by the bucket's clock: a run whose own clock is wrong takes nothing from a living holder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tests.integration.audit.test_first_runs import KilledAfterWrite
from tests.support.lab import FORENSICS, START, Lab, RunResult, open_lab
from tests.support.scenes import once_each, threats_at, wait_until
from tests.support.settings import STATE

LEASE_SECONDS = 180
MINUTE, HOUR = 60, 3600
OFF_BY = [4 * MINUTE, 10 * MINUTE, 59 * MINUTE, 5 * HOUR, -10 * MINUTE, -59 * MINUTE, -5 * HOUR]


@pytest.fixture(name="lab")
def _lab() -> Iterator[Lab]:
    world = threats_at(START - timedelta(minutes=20), 10)
    with open_lab(world, LOOKBACK_HOURS="3", LEASE_SECONDS=str(LEASE_SECONDS), FETCH_CONCURRENCY="2") as lab:
        yield lab


@contextmanager
def a_run_at_work(lab: Lab) -> Iterator[Future[RunResult]]:
    """It waits for TAP's answers, with all of its workers, and holds its lease; in the end it is let go."""
    lab.tap.faults.add(FORENSICS, Fault("hang", times=2))
    with ThreadPoolExecutor(1) as pool:
        try:
            run = pool.submit(lab.run)
            wait_until(lambda: len(lab.tap.calls_to(FORENSICS)) == 2)
            yield run
        finally:
            lab.tap.faults.clear()


@pytest.mark.parametrize("seconds", OFF_BY)
def test_a_run_whose_clock_is_off_leaves_a_holder_at_work_alone(lab: Lab, seconds: float) -> None:
    with a_run_at_work(lab) as holder:
        owner = lab.state()["lease"]["owner"]
        lab.skew(seconds)
        second = lab.run()
        lab.skew(0)
        assert second.error or second.stats.outcome == "busy"
        assert not second.has_message("Taking over")
        assert lab.state()["lease"]["owner"] == owner
    assert holder.result().stats.outcome == "complete"
    assert once_each(lab)


@pytest.mark.parametrize("seconds", [-10 * MINUTE, -3 * MINUTE, 10 * MINUTE, 59 * MINUTE])
def test_a_holder_whose_own_clock_is_off_keeps_its_lease(lab: Lab, seconds: float) -> None:
    """What it wrote of time is wrong; the bucket knows when it wrote it."""
    lab.skew(seconds)
    with a_run_at_work(lab) as holder:
        owner = lab.state()["lease"]["owner"]
        lab.skew(0)
        assert lab.run().stats.outcome == "busy"
        assert lab.state()["lease"]["owner"] == owner
    assert holder.result().stats.outcome == "complete"
    assert once_each(lab)


@pytest.mark.parametrize("seconds", [0, *(seconds for seconds in OFF_BY if abs(seconds) < HOUR)])
def test_a_dead_run_is_taken_over_once_the_bucket_says_so_and_not_before(lab: Lab, seconds: float) -> None:
    with lab.through(KilledAfterWrite()):
        lab.run()
    lab.skew(seconds)
    lab.clock.step(seconds=LEASE_SECONDS - 20)
    assert lab.run().stats.outcome == "busy"
    lab.clock.step(seconds=30)
    result = lab.run()
    assert result.has_message("Taking over")
    # With a clock far behind, its own last minutes are read later.
    lab.skew(0)
    lab.clock.step(hours=1)
    lab.run_until_done()
    assert once_each(lab)


def test_a_lease_holds_as_long_as_its_own_run_said_whatever_the_next_one_s_setting(lab: Lab) -> None:
    with lab.through(KilledAfterWrite()):
        lab.run()
    lab.clock.step(seconds=60)
    assert lab.run(LEASE_SECONDS="10").stats.outcome == "busy"
    lab.clock.step(seconds=LEASE_SECONDS - 50)
    assert lab.run(LEASE_SECONDS="3600").has_message("Taking over")


@pytest.mark.parametrize("seconds", [-10 * MINUTE, 0, 10 * MINUTE])
def test_a_lease_of_the_first_version_goes_by_the_bucket_too(lab: Lab, seconds: float) -> None:
    """Left by a 0.1.0 run that is at work while this version is deployed; its clock was off."""
    until = START + timedelta(seconds=seconds + LEASE_SECONDS)
    lease = {
        "run_id": f"{START:%Y%m%d_%H%M%S}",
        "owner": "living",
        "until": until.isoformat(),
        "started": START.isoformat(),
    }
    document = {"version": 1, "last_event_time": (START - timedelta(hours=1)).isoformat(), "lease": lease}
    lab.bucket.put(STATE, json.dumps(document))
    assert lab.run().stats.outcome == "busy"
    assert lab.state() == document
    lab.clock.step(seconds=LEASE_SECONDS + 10)
    assert lab.run().has_message("Taking over")


def test_a_lease_of_this_version_just_written_holds_and_a_dead_one_does_not(lab: Lab) -> None:
    lease = {
        "run_id": f"{START:%Y%m%d_%H%M%S}",
        "owner": "living",
        "seconds": LEASE_SECONDS,
        "started": START.isoformat(),
        "batches": 0,
        "campaigns": [],
        "event_batches": 0,
    }
    cursor = (START - timedelta(hours=1)).isoformat()
    document = {"version": 2, "last_event_time": cursor, "gaps": [], "backlog": {}, "lease": lease}
    lab.skew(10 * MINUTE)
    lab.bucket.put(STATE, json.dumps(document))
    assert lab.run().stats.outcome == "busy"
    assert lab.state() == document
    lab.skew(-10 * MINUTE)
    lab.clock.step(seconds=LEASE_SECONDS + 10)
    assert lab.run().has_message("Taking over")


def test_a_holder_trusts_its_own_steady_clock_not_the_one_on_the_wall(lab: Lab) -> None:
    """Its wall clock jumps ahead by hours in mid-run: no reason to think its lease lost."""
    with a_run_at_work(lab) as holder:
        generation = lab.bucket.generation(STATE)
        lab.skew(5 * HOUR)
        lab.tap.faults.clear()
        assert holder.result().stats.outcome == "complete"
        assert lab.bucket.generation(STATE) > generation
    assert once_each(lab)
