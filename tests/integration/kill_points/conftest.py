"""One storage server and one stand-in for TAP for all; a bucket of its own for each story that is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tests.support.kill_points.scene import Scene, small_world

NewScene = Callable[..., Scene]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def storage() -> Iterator[FakeBucket]:
    with FakeBucket("unused") as server:
        yield server


@pytest.fixture
def tap() -> Iterator[TapServer]:
    """A world of the last hour, and an API that takes its time: commits fall between the batches."""
    with TapServer(small_world(utc_now()), siem_limit=None, latency_seconds=0.2) as server:
        server.pack_reports()
        yield server


@pytest.fixture
def new_scene(storage: FakeBucket, tap: TapServer, tmp_path: Path) -> Iterator[NewScene]:
    """Makes a scene with an empty bucket; the arguments are settings. The lease is as short as can be."""

    scenes: list[Scene] = []

    def make(**env: str) -> Scene:
        settings = {"LEASE_SECONDS": "1", "FETCH_CONCURRENCY": "2", "RUN_BUDGET_SECONDS": "40"}
        scenes.append(Scene(f"bucket-{next(_numbers)}", storage, tap, tmp_path, settings | env))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.stop()
