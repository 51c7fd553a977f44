from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from tap_forensics.bucket import Bucket, Conflict
from tap_forensics.errors import LeaseLost, QuotaSpent, StateUnreadable, StorageFailed
from tap_forensics.held import HeldState, Place, state_place
from tap_forensics.ledger import FORENSICS, SIEM
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.state import VERSION, Lease, State, decode, encode

from .fakes import NOW, FakeTime, configured

STATE, HANDOVER = "state/tap-forensics/state.json", "tap-forensics/state.json"
PLACE = Place(STATE, HANDOVER)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)

Hold = Callable[[], HeldState]


@pytest.fixture
def hold(fake: FakeBucket, time: FakeTime) -> Hold:
    """Makes runs on one clock, with a lease of three minutes."""
    return lambda: HeldState(Bucket(fake.client(), fake.name, lambda: 30.0), PLACE, time.clock, 180)


def stored(fake: FakeBucket) -> State:
    return decode(fake.get(STATE), "here", NOW + 1000 * HOUR)


def put(fake: FakeBucket, state: State) -> int:
    fake.put(STATE, encode(state))
    return fake.generation(STATE)


def lease_until(seconds: float) -> Lease:
    """Another run's, which has finished two batches."""
    return Lease("20260304_090000", "other", NOW + seconds * SECOND, NOW - HOUR, 2, ["c1"])


@pytest.mark.parametrize(
    ("prefix", "key", "place"),
    [
        ("tap", "tap/state.json", Place("state/tap/state.json", "tap/state.json")),
        ("tap", "tap/deep/s.json", Place("state/tap/deep/s.json", "tap/deep/s.json")),
        ("tap", "tapestry/state.json", Place("tapestry/state.json", None)),
        ("tap", "elsewhere/state.json", Place("elsewhere/state.json", None)),
        ("tap", "tap", Place("tap", None)),
        ("", "state.json", Place("state.json", None)),
        ("state", "state/state.json", Place("working-state/state/state.json", "state/state.json")),
        (
            "state/state",
            "state/state/s.json",
            Place("working-state/state/state/s.json", "state/state/s.json"),
        ),
        (
            "working-state",
            "working-state/s.json",
            Place("state/working-state/s.json", "working-state/s.json"),
        ),
    ],
)
def test_the_working_state_lies_where_no_feed_looks(prefix: str, key: str, place: Place) -> None:
    assert state_place(configured(GCS_PREFIX=prefix, STATE_KEY=key)) == place


def test_a_first_run_takes_the_lease(fake: FakeBucket, hold: Hold) -> None:
    held = hold()
    assert held.acquire()
    assert not held.taken_over
    lease = stored(fake).lease
    assert lease is not None
    assert (lease.run_id, lease.until, lease.started) == ("20260304_100000", NOW + 180 * SECOND, NOW)


def test_the_published_functions_object_is_taken_over_and_left_as_it_is(fake: FakeBucket, hold: Hold) -> None:
    theirs = b'{"last_event_time": "2026-03-04T09:00:00+00:00"}'
    fake.put(HANDOVER, theirs)
    held = hold()
    assert held.acquire()
    assert held.cursor == NOW - HOUR
    assert (stored(fake).last_event_time, fake.get(HANDOVER)) == (NOW - HOUR, theirs)


def test_once_there_is_a_working_state_the_published_functions_object_is_not_read(
    fake: FakeBucket, hold: Hold
) -> None:
    put(fake, State(VERSION, last_event_time=NOW - HOUR))
    fake.put(HANDOVER, b"not json")
    held = hold()
    assert held.acquire()
    assert held.cursor == NOW - HOUR


@pytest.mark.parametrize("seconds", [0.001, 60, 180])
def test_a_live_lease_is_respected_and_nothing_is_written(
    fake: FakeBucket, hold: Hold, seconds: float
) -> None:
    before = put(fake, State(VERSION, lease=lease_until(seconds)))
    assert not hold().acquire()
    assert fake.generation(STATE) == before


@pytest.mark.parametrize("seconds", [0, -0.001, -3600])
def test_an_expired_lease_is_taken_over_under_its_name(fake: FakeBucket, hold: Hold, seconds: float) -> None:
    put(fake, State(VERSION, lease=lease_until(seconds)))
    held = hold()
    assert held.acquire()
    assert held.taken_over
    assert (held.lease.run_id, held.lease.started, held.lease.batches) == ("20260304_090000", NOW - HOUR, 2)
    assert held.lease.campaigns == ["c1"]
    now_there = stored(fake).lease
    assert now_there is not None
    assert (now_there.owner != "other", now_there.until) == (True, NOW + 180 * SECOND)


def test_of_two_runs_at_once_one_gets_the_lease(fake: FakeBucket, hold: Hold) -> None:
    put(fake, State(VERSION, last_event_time=NOW - HOUR))
    got: list[bool] = []
    together = threading.Barrier(4)

    def acquire(held: HeldState) -> None:
        together.wait(10)
        got.append(held.acquire())

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
        b'{"version":2}',
        b"[]",
        b'{"version":1,"lease":{"run_id":5}}',
        b'{"last_event_time":"2026-03-04T11:00:01Z"}',
        b"\xff" * 100,
        b"[" * 100_000,
    ],
    ids=range(8),
)
@pytest.mark.parametrize("place", [STATE, HANDOVER])
def test_a_state_that_cannot_be_used_is_named_and_left_untouched(
    fake: FakeBucket, hold: Hold, odd: bytes, place: str
) -> None:
    fake.put(place, odd)
    before = fake.generation(place)
    with pytest.raises(StateUnreadable, match=f"gs://demo-bucket/{place} "):
        hold().acquire()
    assert (fake.objects(), fake.generation(place)) == ({place: odd}, before)


def test_a_missing_bucket_is_named(fake: FakeBucket, time: FakeTime) -> None:
    held = HeldState(Bucket(fake.client(), "other-bucket", lambda: 30.0), PLACE, time.clock, 180)
    with pytest.raises(StorageFailed, match="gs://other-bucket/"):
        held.acquire()


def test_a_commit_writes_what_was_changed_and_renews_the_lease(
    fake: FakeBucket, hold: Hold, time: FakeTime
) -> None:
    held = hold()
    held.acquire()
    time.advance(100)
    with held.changing() as state:
        state.collected["t"] = 5
    held.commit()
    now_there = stored(fake)
    assert now_there.collected == {"t": 5}
    assert now_there.lease is not None
    assert now_there.lease.until == NOW + 280 * SECOND


def test_commits_are_at_least_a_second_apart(hold: Hold, time: FakeTime) -> None:
    held = hold()
    held.acquire()
    moments = [time.monotonic()]
    for _ in range(5):
        held.commit()
        moments.append(time.monotonic())
    assert moments == [0, 1, 2, 3, 4, 5]
    time.advance(0.25)
    held.commit()
    assert (time.sleeps, time.monotonic()) == ([1, 1, 1, 1, 1, 0.75], 6)


def test_commits_of_several_threads_are_a_second_apart_too(hold: Hold, time: FakeTime) -> None:
    held = hold()
    held.acquire()
    threads = [threading.Thread(target=held.commit) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert time.monotonic() == 5


def test_a_commit_that_is_not_due_is_left_to_the_next(fake: FakeBucket, hold: Hold, time: FakeTime) -> None:
    held = hold()
    held.acquire()
    before = fake.generation(STATE)
    time.advance(4.9)
    held.commit_if_due()
    assert (fake.generation(STATE), time.sleeps) == (before, [])
    time.advance(0.2)
    held.commit_if_due()
    assert fake.generation(STATE) != before


@pytest.mark.parametrize(("lease_seconds", "due"), [(180, 60), (3600, 60), (90, 30), (1, 1)])
def test_the_lease_is_renewed_each_minute_or_third_of_it(
    fake: FakeBucket, bucket: Bucket, time: FakeTime, lease_seconds: int, due: float
) -> None:
    held = HeldState(bucket, PLACE, time.clock, lease_seconds)
    held.acquire()
    before = fake.generation(STATE)
    time.advance(due - 0.25)
    held.renew_if_due()
    assert fake.generation(STATE) == before
    time.advance(0.25)
    held.renew_if_due()
    assert fake.generation(STATE) != before


def test_a_lease_that_ran_out_and_nobody_took_is_ours_again(
    fake: FakeBucket, hold: Hold, time: FakeTime
) -> None:
    held = hold()
    held.acquire()
    time.advance(179)
    before = fake.generation(STATE)
    held.renew_if_run_out()
    assert fake.generation(STATE) == before
    time.advance(1)
    held.renew_if_run_out()
    lease = stored(fake).lease
    assert lease is not None
    assert lease.until == NOW + 360 * SECOND


def test_a_lease_that_ran_out_and_was_taken_is_lost(fake: FakeBucket, hold: Hold, time: FakeTime) -> None:
    sleeper, other = hold(), hold()
    sleeper.acquire()
    time.advance(200)
    assert other.acquire()
    theirs = fake.get(STATE)
    for step in (sleeper.renew_if_run_out, sleeper.commit, sleeper.commit_if_due, sleeper.release):
        with pytest.raises(LeaseLost, match=f"gs://demo-bucket/{STATE} was changed by another run"):
            step()
        time.advance(100)
    assert fake.get(STATE) == theirs


def test_once_the_lease_is_lost_the_state_can_no_longer_be_changed(hold: Hold, time: FakeTime) -> None:
    sleeper, other = hold(), hold()
    sleeper.acquire()
    time.advance(200)
    other.acquire()
    with pytest.raises(LeaseLost):
        sleeper.commit()
    with pytest.raises(LeaseLost), sleeper.changing():
        pass
    sleeper.renew_if_due()


def test_a_state_that_was_deleted_meanwhile_is_lost(fake: FakeBucket, hold: Hold) -> None:
    held = hold()
    held.acquire()
    fake.delete(STATE)
    with pytest.raises(LeaseLost):
        held.commit()
    assert fake.names() == []


def test_a_state_that_became_unreadable_meanwhile_is_named_and_left_untouched(
    fake: FakeBucket, hold: Hold
) -> None:
    held = hold()
    held.acquire()
    fake.put(STATE, b"edited by hand")
    with pytest.raises((LeaseLost, StateUnreadable), match=f"gs://demo-bucket/{STATE}"):
        held.commit()
    assert fake.get(STATE) == b"edited by hand"


def test_a_commit_of_ours_whose_answer_was_lost_is_adopted(fake: FakeBucket, hold: Hold) -> None:
    held = hold()
    held.acquire()
    fake.put(STATE, fake.get(STATE))
    with held.changing() as state:
        state.collected["t"] = 5
    held.commit()
    assert stored(fake).collected == {"t": 5}
    held.commit()


def test_a_lease_given_back_is_free_at_once_and_its_name_is_remembered(fake: FakeBucket, hold: Hold) -> None:
    held = hold()
    held.acquire()
    held.release()
    state = stored(fake)
    assert (state.lease, state.last_run_id) == (None, "20260304_100000")
    later = hold()
    assert later.acquire()
    assert not later.taken_over
    assert later.lease.run_id > "20260304_100000"


def test_after_it_was_given_back_there_is_no_lease_to_ask_for(hold: Hold) -> None:
    held = hold()
    held.acquire()
    held.release()
    with pytest.raises(LeaseLost):
        _ = held.lease


def test_with_a_batch_in_doubt_the_lease_stays_for_who_takes_over(hold: Hold, time: FakeTime) -> None:
    held = hold()
    held.acquire()
    held.in_doubt = True
    held.release()
    later = hold()
    assert not later.acquire()
    time.advance(200)
    assert later.acquire()
    assert later.taken_over
    assert later.lease.run_id == "20260304_100000"


def test_a_runs_call_count_goes_with_its_commits_and_on_to_the_next_run(hold: Hold, time: FakeTime) -> None:
    held = hold()
    held.acquire()
    ledger = held.keep_ledger({SIEM: 2, FORENSICS: None})
    ledger.take(SIEM, NOW)
    ledger.take(SIEM, NOW)
    held.release()
    later = hold()
    later.acquire()
    with pytest.raises(QuotaSpent):
        later.keep_ledger({SIEM: 2, FORENSICS: None}).take(SIEM, time.now())


@pytest.mark.parametrize(
    ("cursor", "written"),
    [
        ("2026-03-04T09:00:00Z", "2026-03-04T09:00:00+00:00"),
        ("2026-03-04T09:00:00.123456Z", "2026-03-04T09:00:00.123456+00:00"),
    ],
)
def test_the_published_function_gets_its_object_back_as_it_writes_it(
    fake: FakeBucket, hold: Hold, cursor: str, written: str
) -> None:
    put(fake, State(VERSION, last_event_time=msgspec.convert(cursor, type=type(NOW))))
    held = hold()
    held.acquire()
    held.write_handover()
    assert json.loads(fake.get(HANDOVER)) == {"last_event_time": written}


def test_the_published_functions_object_is_brought_up_to_date(fake: FakeBucket, hold: Hold) -> None:
    fake.put(HANDOVER, b'{"last_event_time": "2026-03-04T08:00:00+00:00"}')
    held = hold()
    held.acquire()
    with held.changing() as state:
        state.last_event_time = NOW
    held.write_handover()
    assert json.loads(fake.get(HANDOVER)) == {"last_event_time": "2026-03-04T10:00:00+00:00"}


def test_an_object_that_is_up_to_date_is_not_written_again(fake: FakeBucket, hold: Hold) -> None:
    put(fake, State(VERSION, last_event_time=NOW))
    held = hold()
    held.acquire()
    held.write_handover()
    before = fake.generation(HANDOVER)
    held.write_handover()
    assert fake.generation(HANDOVER) == before


def test_without_a_cursor_the_published_functions_object_is_not_written(fake: FakeBucket, hold: Hold) -> None:
    held = hold()
    held.acquire()
    held.write_handover()
    assert fake.names() == [STATE]


def test_a_state_key_of_its_own_has_no_second_object(
    fake: FakeBucket, bucket: Bucket, time: FakeTime
) -> None:
    fake.put("elsewhere.json", encode(State(VERSION, last_event_time=NOW)))
    held = HeldState(bucket, Place("elsewhere.json", None), time.clock, 180)
    held.acquire()
    held.write_handover()
    assert fake.names() == ["elsewhere.json"]


def test_whoever_changes_the_published_functions_object_meanwhile_wins(fake: FakeBucket, hold: Hold) -> None:
    put(fake, State(VERSION, last_event_time=NOW))
    held = hold()
    held.acquire()
    read = held._bucket.read

    def read_then_changed(name: str) -> object:
        found = read(name)
        fake.put(HANDOVER, b"theirs")
        return found

    held._bucket.read = read_then_changed  # type: ignore[method-assign, assignment]  # someone writes between our read and our write
    with pytest.raises(Conflict):
        held.write_handover()
    assert fake.get(HANDOVER) == b"theirs"
