"""State objects in a bucket, for the tests of what holds them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tap_forensics.config.state_location import StateLocation
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.storage.state import Lease, State, decode, encode
from tap_forensics.storage.state_store import StateStore
from tests.support.clocks import NOW
from tests.support.settings import HANDOVER, STATE

PLACE = StateLocation(STATE, HANDOVER)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)

# Makes runs with a lease of three minutes; `ahead`: by how much their local clock is wrong.
Hold = Callable[..., StateStore]


def no_plan(_: State, __: Lease | None) -> None:
    """A run that sets out to do nothing."""


def stored(fake: FakeBucket) -> State:
    return decode(fake.get(STATE), "here", NOW + 1000 * HOUR)


def put(fake: FakeBucket, state: State) -> int:
    fake.put(STATE, encode(state))
    return fake.generation(STATE)


def another_runs_lease(seconds: int = 180) -> Lease:
    """Of a run that has finished two batches."""
    return Lease("20260304_090000", "other", NOW - HOUR, seconds, batches=2, campaigns=["c1"])


def acquired(store: StateStore) -> StateStore:
    store.acquire(no_plan)
    return store
