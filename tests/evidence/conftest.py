"""Samples of what the function writes, made from the sandbox's world by the real run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tap_forensics.sandbox.world import World
from tests.faults.lab import START, Lab, lab


@pytest.fixture(scope="package")
def collected() -> Iterator[Lab]:
    """A lab after one run with events: what it wrote lies in its bucket, as on the day of a deployment."""
    world = World(3, start=START - timedelta(hours=3), end=START, messages_per_hour=12, clicks_per_hour=5)
    with lab(world, LOOKBACK_HOURS="3", EVENTS_PREFIX="tap-siem") as made:
        assert made.run().good.outcome == "complete"
        yield made


@pytest.fixture(scope="package")
def folder(collected: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same objects as files, the state object among them."""
    root = tmp_path_factory.mktemp("bucket")
    for name, data in collected.bucket.objects().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root
