"""A run that gets no CPU for longer than its lease, wakes, and goes on as if nothing had happened."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.kill_points.conftest import NewScene
from tests.support.kill_points.gatekeeper import Gatekeeper
from tests.support.kill_points.orders import Act, Applies, Call, nth
from tests.support.kill_points.runner import Ending
from tests.support.kill_points.scene import (
    ONE_BATCH_BYTES,
    SMALL_BATCH_BYTES,
    Scene,
    asks_for_forensics,
    reads_handover,
    writes_evidence,
    writes_state,
)
from tests.support.settings import HANDOVER

pytestmark = pytest.mark.slow

TWO_RUNS_AT_ONCE = "was changed by another run"


class Zombie:
    """A run that fell asleep with one call on its way."""

    def __init__(self, scene: Scene, gate: Gatekeeper, at: Applies, batch_bytes: int) -> None:
        self._gate = gate
        self._store = gate.order(Act.HOLD, at)
        self.run = scene.start(gate, batch_bytes=batch_bytes)
        self._store.wait_until_met()
        self.run.sleep()

    def call_lands(self) -> Call:
        """What was on its way reaches the server, while the run still sleeps."""
        self._store.release()
        self._gate.wait_until_quiet()
        return self._store.wait_until_met()

    def wakes(self) -> Ending:
        self.run.wake()
        return self.run.end()


@contextmanager
def asleep(scene: Scene, at: Applies, batch_bytes: int = SMALL_BATCH_BYTES) -> Iterator[Zombie]:
    """A run asleep in mid-call, its lease run out."""
    with scene.gate() as gate:
        zombie = Zombie(scene, gate, at, batch_bytes)
        try:
            scene.wait_for_the_lease_to_run_out()
            yield zombie
        finally:
            zombie.run.kill()


@pytest.mark.parametrize("call", [writes_evidence, writes_state], ids=["batch", "commit"])
def test_a_call_that_comes_after_another_run_has_finished_changes_nothing(
    call: Applies, new_scene: NewScene
) -> None:
    scene = new_scene()
    with asleep(scene, nth(2, call)) as zombie:
        since = utc_now()
        scene.run_until_done()
        left = scene.objects()
        assert zombie.call_lands().status == 412
        assert zombie.wakes() is Ending.FAILED
    assert TWO_RUNS_AT_ONCE in scene.log
    assert scene.objects() == left
    assert not scene.check(since)


def test_a_commit_that_comes_while_another_run_is_at_work_takes_nothing_from_it(new_scene: NewScene) -> None:
    scene = new_scene()
    with asleep(scene, nth(2, writes_state)) as zombie, scene.gate() as gate:
        upload = gate.order(Act.HOLD, writes_evidence)
        since = utc_now()
        successor = scene.start(gate)
        upload.wait_until_met()
        assert zombie.call_lands().status == 412
        assert zombie.wakes() is Ending.FAILED
        upload.release()
        assert successor.end() is Ending.COMPLETE
    assert TWO_RUNS_AT_ONCE in scene.log
    assert not scene.check(since)


def test_a_lease_that_is_asked_for_too_late_is_another_run_s(new_scene: NewScene) -> None:
    scene = new_scene()
    with asleep(scene, writes_state) as zombie:
        since = utc_now()
        scene.run_until_done()
        left = scene.objects()
        assert zombie.call_lands().status == 412
        assert zombie.wakes() is Ending.BUSY
    assert scene.objects() == left
    assert not scene.check(since)


@pytest.mark.parametrize(
    ("batch", "of_the_zombie", "of_its_successor"),
    [
        pytest.param(1, SMALL_BATCH_BYTES, SMALL_BATCH_BYTES, id="as large"),
        pytest.param(1, SMALL_BATCH_BYTES, ONE_BATCH_BYTES, id="smaller"),
        pytest.param(1, ONE_BATCH_BYTES, SMALL_BATCH_BYTES, id="larger"),
        pytest.param(2, ONE_BATCH_BYTES, SMALL_BATCH_BYTES, id="larger, after a first"),
    ],
)
def test_a_zombie_s_object_under_the_next_name_counts_as_done(
    batch: int, of_the_zombie: int, of_its_successor: int, new_scene: NewScene
) -> None:
    """The batches of two runs differ: what one run wrote as one object, the other has in several."""
    scene = new_scene()
    if batch > 1:
        die_after_one_batch(scene)
    assert_a_zombie_s_object_counts(scene, writes_evidence, of_the_zombie, of_its_successor)


def assert_a_zombie_s_object_counts(
    scene: Scene, writes: Applies, of_the_zombie: int, of_its_successor: int
) -> None:
    """The zombie's object lands under the name that its successor is about to write."""
    with asleep(scene, writes, of_the_zombie) as zombie, scene.gate() as gate:
        upload = gate.order(Act.HOLD, writes)
        since = utc_now()
        successor = scene.start(gate, batch_bytes=of_its_successor)
        wanted = upload.wait_until_met()
        landed = zombie.call_lands()
        assert (landed.status, landed.object_name) == (200, wanted.object_name)
        upload.release()
        assert successor.end() is Ending.COMPLETE
        left = scene.objects()
        assert zombie.wakes() is Ending.FAILED
    assert wanted.status == 412
    assert scene.objects() == left
    assert not scene.check(since), scene.log


def die_after_one_batch(scene: Scene) -> None:
    with scene.gate() as gate:
        gate.order(Act.KILL_BEFORE, nth(2, writes_evidence))
        assert scene.start(gate).end() is Ending.KILLED
        gate.wait_until_quiet()
    scene.wait_for_the_lease_to_run_out()


@pytest.mark.parametrize(
    ("limit", "read"),
    [
        # The first read of it is for the state: there is none of our own yet.
        pytest.param("1800", 2, id="as the run begins"),
        pytest.param("1800", 3, id="by seconds"),
        # Three windows of six: the run stops, in good order, hours before now.
        pytest.param("3", 3, id="by hours"),
    ],
)
def test_a_late_hand_over_does_not_set_the_published_function_s_time_back(
    limit: str, read: int, new_scene: NewScene
) -> None:
    scene = new_scene(TAP_SIEM_DAILY_LIMIT=limit)
    scene.put(HANDOVER, json.dumps({"last_event_time": (utc_now() - timedelta(hours=5)).isoformat()}))
    with asleep(scene, nth(read, reads_handover)) as zombie:
        del scene.env["TAP_SIEM_DAILY_LIMIT"]
        since = utc_now()
        scene.run_until_done()
        left = scene.objects()
        zombie.call_lands()
        assert zombie.wakes() is Ending.FAILED
    assert scene.objects() == left
    assert not scene.check(since)


def test_a_batch_counts_in_the_state_only_together_with_its_threats(new_scene: NewScene) -> None:
    """Whatever comes between the two steps, here a log line on a pipe that is full: the lease is renewed by a
    commit meanwhile, and then the run dies."""
    scene = new_scene()
    with scene.gate() as gate:
        wrote = gate.order(Act.HOLD, writes_evidence)
        run = scene.start(gate, stalls_at="Wrote ")
        wrote.wait_until_met()
        gate.order(Act.KILL_AFTER, writes_state)
        wrote.release()
        assert run.end() is Ending.KILLED
        gate.wait_until_quiet()
    assert len(scene.evidence()) == 1
    since = utc_now()
    scene.run_until_done()
    assert not scene.check(since)


def test_a_lease_that_ran_out_and_that_nobody_took_is_renewed_before_the_next_batch(
    new_scene: NewScene,
) -> None:
    scene = new_scene()
    since = utc_now()
    with scene.gate() as gate:
        fetch = gate.order(Act.HOLD, asks_for_forensics)
        run = scene.start(gate)
        fetch.wait_until_met()
        run.sleep()
        scene.wait_for_the_lease_to_run_out()
        calls = len(gate.journal)
        fetch.release()
        run.wake()
        assert run.end() is Ending.COMPLETE
        assert writes_state(next(call for call in gate.journal[calls:] if call.writes))
    assert not scene.check(since)


def test_a_run_that_takes_longer_than_its_lease_keeps_it(new_scene: NewScene) -> None:
    lease = timedelta(seconds=3)
    scene = new_scene(LEASE_SECONDS="3")
    since = utc_now()
    with scene.gate() as gate:
        fetch = gate.order(Act.HOLD, asks_for_forensics)
        run = scene.start(gate)
        fetch.wait_until_met()
        first = scene.state_written()
        while scene.state_written() <= first + lease:
            assert utc_now() < first + 10 * lease, "the lease was never renewed"
            time.sleep(0.05)
        assert scene.start().end() is Ending.BUSY
        fetch.release()
        assert run.end() is Ending.COMPLETE
    assert not scene.check(since)


def got_forensics(call: Call) -> bool:
    return asks_for_forensics(call) and call.status is not None


def test_a_run_that_knows_its_lease_lost_writes_no_batch(new_scene: NewScene) -> None:
    """The other run took the lease, wrote nothing, since TAP refused it, and gave the lease back."""
    # With three workers all threats are announced at once: the commit of another group would wait here, too.
    scene = new_scene(LEASE_SECONDS="3", FETCH_CONCURRENCY="3")
    with scene.gate() as gate:
        fetch = gate.order(Act.HOLD, nth(3, asks_for_forensics))
        zombie = scene.start(gate, batch_bytes=ONE_BATCH_BYTES)
        fetch.wait_until_met()
        zombie.sleep()
        scene.wait_for_the_lease_to_run_out()
        scene.tap.faults.add("/v2/forensics", Fault("status", times=None, status=401))
        assert scene.start().end() is Ending.FAILED
        scene.tap.faults.clear()
        renewal = gate.order(Act.HOLD, writes_state)
        zombie.wake()
        renewal.wait_until_met()
        fetch.release()
        gate.wait_until(lambda journal: sum(map(got_forensics, journal)) == len(scene.world.threats))
        renewal.release()
        assert zombie.end() is Ending.FAILED
    assert not scene.evidence()
    since = utc_now()
    scene.run_until_done()
    assert not scene.check(since)
