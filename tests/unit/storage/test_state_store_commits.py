"""A run's commits while it holds the lease, and how it releases it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from requests import PreparedRequest, Response
from requests.exceptions import ConnectionError as NoConnection

from tap_forensics.errors import (
    LeaseHeld,
    LeaseLost,
    QuotaExceeded,
    RunFailed,
    StateUnreadable,
    StorageFailed,
)
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.state import Threat
from tap_forensics.storage.state_store import StateStore
from tap_forensics.tap.quota import FORENSICS, SIEM
from tap_forensics.tap.windows import Window
from tests.support.clocks import NOW, MovableClock
from tests.support.lab_bucket import LabBucket, Through
from tests.support.settings import STATE
from tests.support.states import HOUR, PLACE, Hold, acquired, stored


class AroundUploads(Through):
    """Calls `before` and `after` around each upload, while they are set. `after` may raise."""

    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        uploads = request.method == "POST" and "/upload/" in (request.url or "")
        if uploads and self.before:
            self.before()
        response = super().send(request, *args, **kwargs)
        if uploads and self.after:
            self.after()
        return response


@pytest.fixture
def uploads(lab: LabBucket) -> AroundUploads:
    """Around those of the next client only."""
    lab.between = AroundUploads()
    return lab.between


def test_a_commit_writes_what_was_changed_and_renews_the_lease(
    lab: LabBucket, hold: Hold, clock: MovableClock
) -> None:
    store, other = acquired(hold()), hold()
    clock.advance(100)
    with store.transaction() as state:
        state.collected["t"] = 5
    store.commit()
    assert stored(lab).collected == {"t": 5}
    clock.advance(179)
    with pytest.raises(LeaseHeld):
        acquired(other)
    clock.advance(1)
    acquired(other)


def test_no_commit_waits_for_another(hold: Hold, clock: MovableClock) -> None:
    store = acquired(hold())
    for _ in range(5):
        store.commit()
    assert clock.sleeps == []


def test_a_commit_that_is_not_due_is_left_to_the_next(
    lab: LabBucket, hold: Hold, clock: MovableClock
) -> None:
    store = acquired(hold())
    before = lab.generation(STATE)
    clock.advance(0.9)
    store.commit_if_due()
    assert lab.generation(STATE) == before
    clock.advance(0.2)
    store.commit_if_due()
    assert lab.generation(STATE) != before


@pytest.mark.parametrize(("lease_seconds", "due"), [(180, 5), (3600, 5), (9, 3), (3, 1)])
def test_the_lease_is_renewed_every_few_seconds(
    lab: LabBucket, clock: MovableClock, lease_seconds: int, due: float
) -> None:
    bucket = Bucket(lab.client(), lab.name, lambda: 30.0)
    store = acquired(StateStore(bucket, PLACE, clock.as_clock, lease_seconds))
    before = lab.generation(STATE)
    clock.advance(due - 0.25)
    store.renew_if_due()
    assert lab.generation(STATE) == before
    clock.advance(0.25)
    store.renew_if_due()
    assert lab.generation(STATE) != before


def test_a_state_that_takes_long_to_write_is_renewed_less_often(
    lab: LabBucket, hold: Hold, clock: MovableClock, uploads: AroundUploads
) -> None:
    uploads.before = lambda: clock.advance(2)
    store = acquired(hold())
    before = lab.generation(STATE)
    clock.advance(17)
    store.renew_if_due()
    assert lab.generation(STATE) == before
    clock.advance(1)
    store.renew_if_due()
    assert lab.generation(STATE) != before


def test_a_lease_that_ran_out_and_nobody_took_is_ours_again(
    lab: LabBucket, hold: Hold, clock: MovableClock
) -> None:
    store = acquired(hold())
    clock.advance(179)
    before = lab.generation(STATE)
    store.ensure_lease()
    assert lab.generation(STATE) == before
    clock.advance(1)
    store.ensure_lease()
    assert lab.generation(STATE) != before


def test_a_lease_that_ran_out_and_was_taken_is_lost(lab: LabBucket, hold: Hold, clock: MovableClock) -> None:
    zombie, other = acquired(hold()), hold()
    clock.advance(200)
    acquired(other)
    theirs = lab.get(STATE)
    for step in (zombie.ensure_lease, zombie.commit, zombie.commit_if_due, zombie.release):
        with pytest.raises(LeaseLost, match=f"gs://demo-bucket/{STATE} was changed by another run"):
            step()
        clock.advance(100)
    assert lab.get(STATE) == theirs


def test_once_the_lease_is_lost_the_state_can_no_longer_be_changed(hold: Hold, clock: MovableClock) -> None:
    zombie, other = acquired(hold()), hold()
    clock.advance(200)
    acquired(other)
    with pytest.raises(LeaseLost):
        zombie.commit()
    with pytest.raises(LeaseLost), zombie.transaction():
        pass
    zombie.renew_if_due()


def test_a_state_that_was_deleted_meanwhile_is_lost(lab: LabBucket, hold: Hold) -> None:
    store = acquired(hold())
    lab.delete(STATE)
    with pytest.raises(LeaseLost):
        store.commit()
    assert lab.names() == []


def test_a_state_that_became_unreadable_meanwhile_is_named_and_left_untouched(
    lab: LabBucket, hold: Hold
) -> None:
    store = acquired(hold())
    lab.put(STATE, b"edited by hand")
    with pytest.raises((LeaseLost, StateUnreadable), match=f"gs://demo-bucket/{STATE}"):
        store.commit()
    assert lab.get(STATE) == b"edited by hand"


def test_a_commit_of_ours_whose_response_was_lost_is_adopted(lab: LabBucket, hold: Hold) -> None:
    store = acquired(hold())
    lab.put(STATE, lab.get(STATE))
    with store.transaction() as state:
        state.collected["t"] = 5
    store.commit()
    assert stored(lab).collected == {"t": 5}
    store.commit()


def test_a_state_that_changes_before_each_commit_is_a_storage_failure(
    lab: LabBucket, hold: Hold, uploads: AroundUploads
) -> None:
    store = acquired(hold())
    tries: list[int] = []

    def an_earlier_commit_lands() -> None:
        tries.append(1)
        lab.put(STATE, lab.get(STATE))

    uploads.before = an_earlier_commit_lands
    with store.transaction() as state:
        state.collected["t"] = 5
    with pytest.raises(StorageFailed, match="changes faster than it can be written") as caught:
        store.commit()
    assert isinstance(caught.value, RunFailed)
    assert 1 < len(tries) < 10
    uploads.before = None
    store.commit()


def test_a_lease_that_was_released_is_free_at_once_and_its_name_is_remembered(
    lab: LabBucket, hold: Hold
) -> None:
    acquired(hold()).release()
    state = stored(lab)
    assert (state.lease, state.last_run_id) == (None, "20260304_100000")
    later = acquired(hold())
    assert later.dead_lease is None
    assert later.lease.run_id > "20260304_100000"


def test_after_the_release_there_is_no_lease_to_ask_for(hold: Hold) -> None:
    store = acquired(hold())
    store.release()
    with pytest.raises(LeaseLost):
        _ = store.lease


@pytest.mark.parametrize("taken", [False, True])
def test_a_release_whose_response_was_lost_is_no_lost_lease(
    lab: LabBucket, hold: Hold, uploads: AroundUploads, taken: bool
) -> None:
    store = acquired(hold())
    lab.between = None
    others: list[StateStore] = []

    def the_response_is_lost() -> None:
        uploads.after = None
        if taken:
            others.append(acquired(hold()))
        raise NoConnection

    uploads.after = the_response_is_lost
    store.release()
    assert len(others) == taken
    assert (stored(lab).lease is not None) == taken
    for other in others:
        other.commit()


def test_a_release_after_the_lease_was_taken_is_a_lost_lease(hold: Hold, clock: MovableClock) -> None:
    zombie = acquired(hold())
    clock.advance(200)
    acquired(hold())
    with pytest.raises(LeaseLost):
        zombie.release()


def test_with_a_batch_in_doubt_the_lease_stays_for_who_takes_over(hold: Hold, clock: MovableClock) -> None:
    store = acquired(hold())
    store.in_doubt = True
    store.release()
    later = hold()
    with pytest.raises(LeaseHeld):
        acquired(later)
    clock.advance(200)
    acquired(later)
    assert later.dead_lease is not None
    assert later.lease.run_id == "20260304_100000"


def test_what_is_announced_is_committed_beside_what_is_still_open(lab: LabBucket, hold: Hold) -> None:
    store = acquired(hold())
    with store.transaction() as state:
        state.backlog = {name: Threat(priority=1, first_seen=NOW) for name in ("a", "b", "c", "d")}
    store.announce(threats=["a", "b", "c"], windows=[Window(NOW - HOUR, NOW)])
    lease = stored(lab).lease
    assert lease is not None
    assert (lease.asking, lease.reading) == (["a", "b", "c"], [(NOW - HOUR, NOW)])
    with store.transaction() as state:
        del state.backlog["a"]
    store.answered("b")
    store.answered("never asked for")
    store.announce(threats=["d"])
    lease = stored(lab).lease
    assert lease is not None
    assert (lease.asking, lease.reading) == (["c", "d"], [])


def test_a_runs_call_count_goes_with_its_commits_and_on_to_the_next_run(
    hold: Hold, clock: MovableClock
) -> None:
    store = acquired(hold())
    quota = store.attach_quota({SIEM: 2, FORENSICS: None})
    quota.reserve(SIEM, NOW)
    quota.reserve(SIEM, NOW)
    store.release()
    later = acquired(hold())
    with pytest.raises(QuotaExceeded):
        later.attach_quota({SIEM: 2, FORENSICS: None}).reserve(SIEM, clock.now())
