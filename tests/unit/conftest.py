"""A stand-in for TAP at a fixed time, ways to ask it through the client, and an empty real bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from tap_forensics.clock import Clock, Deadline
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.state_store import StateStore
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota
from tests.support.clocks import NOW, MovableClock
from tests.support.lab_bucket import LabBucket
from tests.support.settings import make_settings
from tests.support.states import PLACE, Hold

Client = Callable[..., AbstractContextManager[TapClient]]


@pytest.fixture(autouse=True, scope="session")
def no_hidden_calls() -> Iterator[None]:
    """Each storage client asks for its bucket's metadata in a thread of its own, for traces that nobody
    reads, and would go on doing so beside later tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        yield


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def world() -> World:
    """Without events or threats but those that a test adds."""
    return World(1, start=NOW - timedelta(hours=8), end=NOW, messages_per_hour=0, clicks_per_hour=0)


@pytest.fixture
def server(world: World) -> Iterator[TapServer]:
    with TapServer(world, clock=lambda: NOW) as server:
        yield server


@contextmanager
def connected(
    base: str,
    *,
    within_seconds: float = 30,
    call_seconds: float = 120,
    quota: Quota | None = None,
    **variables: str,
) -> Iterator[TapClient]:
    """The client, told to use `base`; its `now` is NOW, its deadline is real."""
    clock = replace(Clock(), now=lambda: NOW)
    settings = make_settings(TAP_API_BASE=base, **variables)
    counted = quota or Quota({}, {SIEM: None, FORENSICS: None})
    with TapClient(
        settings, clock, Deadline.after(clock, within_seconds), counted, call_seconds=call_seconds
    ) as tap:
        yield tap


@pytest.fixture
def client(server: TapServer) -> Client:
    """Makes clients of the stand-in; keywords as in `connected`."""
    return lambda **given: connected(**({"base": server.url} | given))


@pytest.fixture
def fake() -> Iterator[FakeBucket]:
    with FakeBucket() as fake:
        yield fake


@pytest.fixture
def bucket(fake: FakeBucket) -> Bucket:
    return Bucket(fake.client(), fake.name, lambda: 30.0)


@pytest.fixture
def lab(clock: MovableClock) -> Iterator[LabBucket]:
    """An empty real bucket on the time of `clock`."""
    with LabBucket(clock.now) as lab:
        yield lab


@pytest.fixture
def hold(lab: LabBucket, clock: MovableClock) -> Hold:
    def hold(ahead: timedelta = timedelta()) -> StateStore:
        local_clock = replace(clock.as_clock, now=lambda: clock.now() + ahead)
        return StateStore(Bucket(lab.client(), lab.name, lambda: 30.0), PLACE, local_clock, 180)

    return hold
