"""Who gets the lease, and what a run finds then."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest

from tap_forensics.config.state_location import StateLocation, state_location
from tap_forensics.errors import LeaseHeld, StateUnreadable, StorageFailed
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.state import VERSION, Lease, State
from tap_forensics.storage.state_store import StateStore
from tests.support.clocks import NOW, MovableClock
from tests.support.lab_bucket import LabBucket
from tests.support.settings import HANDOVER, STATE, make_settings
from tests.support.states import HOUR, PLACE, SECOND, Hold, acquired, another_runs_lease, no_plan, put, stored


@pytest.mark.parametrize(
    ("prefix", "key", "place"),
    [
        ("tap", "tap/state.json", StateLocation("state/tap/state.json", "tap/state.json")),
        ("tap", "tap/deep/s.json", StateLocation("state/tap/deep/s.json", "tap/deep/s.json")),
        ("tap", "tapestry/state.json", StateLocation("tapestry/state.json", None)),
        ("tap", "elsewhere/state.json", StateLocation("elsewhere/state.json", None)),
        ("tap", "tap", StateLocation("tap", None)),
        ("", "state.json", StateLocation("state.json", None)),
        ("state", "state/state.json", StateLocation("working-state/state/state.json", "state/state.json")),
        (
            "state/state",
            "state/state/s.json",
            StateLocation("working-state/state/state/s.json", "state/state/s.json"),
        ),
        (
            "working-state",
            "working-state/s.json",
            StateLocation("state/working-state/s.json", "working-state/s.json"),
        ),
    ],
)
def test_the_working_state_lies_where_no_feed_looks(prefix: str, key: str, place: StateLocation) -> None:
    assert state_location(make_settings(GCS_PREFIX=prefix, STATE_KEY=key)) == place


def test_a_first_run_takes_the_lease(lab: LabBucket, hold: Hold) -> None:
    store = acquired(hold())
    assert (store.dead_lease, store.is_new_here) == (None, True)
    lease = stored(lab).lease
    assert lease is not None
    assert (lease.run_id, lease.seconds, lease.started) == ("20260304_100000", 180, NOW)


def test_what_is_planned_is_in_the_commit_that_takes_the_lease(lab: LabBucket, hold: Hold) -> None:
    put(lab, State(VERSION, last_event_time=NOW - HOUR))

    def plan(state: State, dead_lease: Lease | None) -> None:
        assert dead_lease is None
        assert state.lease is not None
        state.last_event_time = NOW

    hold().acquire(plan)
    found = stored(lab)
    assert found.lease is not None
    assert found.last_event_time == NOW


def test_a_plan_that_fails_writes_nothing(lab: LabBucket, hold: Hold) -> None:
    def plan(_: State, __: Lease | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hold().acquire(plan)
    assert lab.names() == []


def test_the_published_functions_object_is_taken_over_and_left_as_it_is(lab: LabBucket, hold: Hold) -> None:
    theirs = b'{"last_event_time": "2026-03-04T09:00:00+00:00"}'
    lab.put(HANDOVER, theirs)
    store = acquired(hold())
    assert store.cursor == NOW - HOUR
    assert (stored(lab).last_event_time, lab.get(HANDOVER)) == (NOW - HOUR, theirs)


def test_once_there_is_a_working_state_the_published_functions_object_is_not_read(
    lab: LabBucket, hold: Hold
) -> None:
    put(lab, State(VERSION, last_event_time=NOW - HOUR))
    lab.put(HANDOVER, b"not json")
    store = acquired(hold())
    assert (store.cursor, store.is_new_here) == (NOW - HOUR, False)


def test_a_missing_state_beside_our_own_handover_object_is_not_a_first_run(
    lab: LabBucket, hold: Hold
) -> None:
    store = acquired(hold())
    with store.transaction() as state:
        state.last_event_time = NOW
    store.write_legacy_state()
    store.release()
    lab.delete(STATE)
    with pytest.raises(StateUnreadable, match=f"{STATE} is gone.*`tap-forensics state repair` restores it"):
        acquired(hold())
    assert lab.names() == [HANDOVER]


@pytest.mark.parametrize("age", [0, 1, 100, 179, 179.5])
@pytest.mark.parametrize("ahead", [timedelta(), timedelta(days=9), timedelta(minutes=-3)], ids=str)
def test_a_lease_is_respected_by_the_buckets_clock_and_nothing_is_written(
    lab: LabBucket, hold: Hold, clock: MovableClock, age: float, ahead: timedelta
) -> None:
    before = put(lab, State(VERSION, lease=another_runs_lease()))
    clock.advance(age)
    with pytest.raises(LeaseHeld):
        acquired(hold(ahead=ahead))
    assert lab.generation(STATE) == before


@pytest.mark.parametrize("age", [180, 181, 3600])
@pytest.mark.parametrize("ahead", [timedelta(), timedelta(hours=-9), timedelta(minutes=3)], ids=str)
def test_a_lease_that_ran_out_by_the_buckets_clock_is_taken_over_under_its_name(
    lab: LabBucket, hold: Hold, clock: MovableClock, age: float, ahead: timedelta
) -> None:
    dead = another_runs_lease()
    put(lab, State(VERSION, lease=dead))
    clock.advance(age)
    store = hold(ahead=ahead)
    given: list[Lease | None] = []
    store.acquire(lambda _, dead_lease: given.append(dead_lease))
    assert given == [store.dead_lease] == [dead]
    found = stored(lab).lease
    assert found is not None
    assert (found.run_id, found.started, found.batches, found.campaigns) == (
        dead.run_id,
        dead.started,
        2,
        ["c1"],
    )
    assert (found.owner != "other", found.seconds) == (True, 180)


def test_how_long_a_lease_holds_is_its_owners_word(lab: LabBucket, hold: Hold, clock: MovableClock) -> None:
    put(lab, State(VERSION, lease=another_runs_lease(seconds=600)))
    clock.advance(599)
    with pytest.raises(LeaseHeld):
        acquired(hold())
    clock.advance(1)
    acquired(hold())


def test_a_lease_of_0_1_0_holds_for_the_configured_time(
    lab: LabBucket, hold: Hold, clock: MovableClock
) -> None:
    lease = {
        "run_id": "20260304_090000",
        "owner": "other",
        "started": "2026-03-04T09:00:00Z",
        "until": "2026-03-04T09:03:00Z",
    }
    lab.put(STATE, json.dumps({"version": 1, "lease": lease}))
    clock.advance(179)
    with pytest.raises(LeaseHeld):
        acquired(hold())
    clock.advance(1)
    store = acquired(hold())
    # 0.1.0 did not mark its hand-over object.
    assert (store.lease.run_id, store.is_new_here) == ("20260304_090000", True)


@pytest.mark.parametrize(("age", "missed"), [(0, False), (5, False), (8, False), (9, True), (179, True)])
def test_a_holder_that_missed_its_renewal_is_told(
    lab: LabBucket, hold: Hold, clock: MovableClock, age: float, missed: bool
) -> None:
    put(lab, State(VERSION, lease=another_runs_lease()))
    clock.advance(age)
    with pytest.raises(LeaseHeld, match="run 20260304_090000") as caught:
        acquired(hold())
    assert caught.value.missed_renewal == missed
    assert (f"The lease ends in {180 - age} s" in str(caught.value)) == missed


@pytest.mark.parametrize("hours", [-8000, -1, 1, 8000])
def test_a_wrong_local_clock_is_set_right(
    lab: LabBucket, hold: Hold, clock: MovableClock, hours: int
) -> None:
    put(lab, State(VERSION, last_event_time=NOW - HOUR))
    store = acquired(hold(ahead=hours * HOUR))
    assert abs(store.clock.now() - clock.now()) <= SECOND
    assert store.lease.started == NOW
    clock.advance(100)
    assert abs(store.clock.now() - clock.now()) <= SECOND


def test_a_local_clock_that_is_right_to_a_few_seconds_is_left_alone(hold: Hold, clock: MovableClock) -> None:
    store = acquired(hold(ahead=4 * SECOND))
    assert store.clock.now() == clock.now() + 4 * SECOND


def test_of_two_runs_at_once_one_gets_the_lease(lab: LabBucket, hold: Hold) -> None:
    put(lab, State(VERSION, last_event_time=NOW - HOUR))
    got: list[bool] = []
    together = threading.Barrier(4)

    def acquire(store: StateStore) -> None:
        together.wait(10)
        try:
            store.acquire(no_plan)
        except LeaseHeld as busy:
            got.append(busy.missed_renewal)
        else:
            got.append(True)

    threads = [threading.Thread(target=acquire, args=(hold(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == [False, False, False, True]


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"not json",
        b'{"version":3}',
        b"[]",
        b'{"version":2,"lease":{"run_id":5}}',
        b'{"last_event_time":"2026-03-04T11:00:01Z"}',
        b"\xff" * 100,
        b"[" * 100_000,
    ],
    ids=range(8),
)
@pytest.mark.parametrize("place", [STATE, HANDOVER])
def test_a_state_that_cannot_be_used_is_named_and_left_untouched(
    lab: LabBucket, hold: Hold, odd: bytes, place: str
) -> None:
    lab.put(place, odd)
    before = lab.generation(place)
    with pytest.raises(StateUnreadable, match=f"gs://demo-bucket/{place} .*`tap-forensics state repair`"):
        acquired(hold())
    assert (lab.objects(), lab.generation(place)) == ({place: odd}, before)


def test_a_missing_bucket_is_named(fake: FakeBucket, clock: MovableClock) -> None:
    store = StateStore(Bucket(fake.client(), "other-bucket", lambda: 30.0), PLACE, clock.as_clock, 180)
    with pytest.raises(StorageFailed, match="gs://other-bucket/"):
        store.acquire(no_plan)
