"""A world, the stand-in for TAP, a real bucket and a clock that can be moved: what one test runs against."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tap_forensics.collect import RunOptions, collect
from tap_forensics.config.settings import load_settings
from tap_forensics.errors import LeaseHeld, RunFailed
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.stats import RunStats
from tap_forensics.storage.numbered_objects import BATCH_BYTES
from tests.support.clocks import NOW, MovableClock
from tests.support.lab_bucket import LabBucket, Through
from tests.support.logs import LogCollector
from tests.support.settings import STATE, environment

SIEM = "/v2/siem/all"
FORENSICS = "/v2/forensics"
START = NOW


@dataclass
class RunResult:
    """How one run ended, and its log."""

    maybe_stats: RunStats | None
    error: RunFailed | None
    log: LogCollector

    def messages(self, level: int = logging.DEBUG) -> list[str]:
        return self.log.messages(level)

    def has_message(self, words: str, level: int = logging.DEBUG) -> bool:
        return any(words in message for message in self.messages(level))

    @property
    def stats(self) -> RunStats:
        """Of a run that did not fail."""
        if self.error:
            raise AssertionError("the run failed") from self.error
        assert self.maybe_stats is not None
        return self.maybe_stats

    @property
    def failure(self) -> RunFailed:
        assert self.error is not None, "the run should have failed"
        return self.error


@dataclass
class Lab:
    """`env` is what the function would find in its environment; change it between runs. `batch_bytes` fill an
    object."""

    world: World
    tap: TapServer
    bucket: LabBucket
    clock: MovableClock
    env: dict[str, str] = field(default_factory=dict)
    transferred: list[tuple[str, bytes]] = field(default_factory=list)
    batch_bytes: int = BATCH_BYTES

    def run(self, **env: str) -> RunResult:
        log, options = LogCollector(), RunOptions(batch_bytes=self.batch_bytes)
        settings = load_settings({**self.env, **env})
        try:
            collect(settings, self.bucket.client, self.clock.as_clock, log.logger, options)
        except LeaseHeld:
            pass  # busy, as the figures say
        except RunFailed as error:
            return RunResult(None, error, log)
        return RunResult(options.stats, None, log)

    def run_until_done(self, most: int = 30) -> list[RunResult]:
        """Runs an hour apart until nothing is left for the next."""
        runs = []
        for _ in range(most):
            runs.append(self.run())
            if not runs[-1].error and runs[-1].stats.outcome == "complete":
                return runs
            self.clock.step(hours=1)
        raise AssertionError(f"still not done: {runs[-1].messages(logging.WARNING)}")

    def skew(self, seconds: float) -> None:
        """From now on the function's own clock is off by so much; TAP's and the bucket's are right."""
        self.clock.skewed = timedelta(seconds=seconds)

    @contextmanager
    def through(self, adapter: Through) -> Iterator[None]:
        """Clients that are opened meanwhile reach the bucket through this adapter."""
        self.bucket.between = adapter
        try:
            yield
        finally:
            self.bucket.between = None

    def feed_transfers(self) -> None:
        """What a feed with *delete transferred files* does: it reads each object, then deletes it."""
        for name, data in self.evidence().items():
            self.transferred.append((name, data))
            self.bucket.delete(name)

    def evidence(self) -> dict[str, bytes]:
        return {name: data for name, data in self.bucket.objects().items() if name.endswith(".ndjson")}

    def lines(self) -> list[dict[str, Any]]:
        """What a feed has, or would get: in the order of the objects' names, deleted ones too."""
        objects = sorted([*self.transferred, *self.evidence().items()])
        return [json.loads(line) for _, data in objects for line in data.split(b"\n") if line]

    def delivered(self) -> Counter[str]:
        """How many THREAT reports were delivered for each threat, parts counted once."""
        return Counter(
            line["_threatId"]
            for line in self.lines()
            if line.get("scope") == "THREAT" and line.get("_part", 1) == 1
        )

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.bucket.get(STATE))
        return state

    def truth(self) -> set[str]:
        """The threats of which the world has evidence."""
        everything = (START - timedelta(days=30), self.clock.now())
        shown = self.world.threat_ids_between(*everything, now=self.clock.now())
        return {name for name in shown if self.world.threats[name].answer == "report"}


@contextmanager
def open_lab(world: World | None = None, *, now: datetime = START, **env: str) -> Iterator[Lab]:
    """A lab whose first run reads everything in `world` (default: ten threats in the last hour)."""
    world = world or World.from_threats(10, now=now, report_bytes=2_000)
    clock = MovableClock(now, running=True)
    with TapServer(world, clock=clock.now) as tap, LabBucket(clock.bucket_now) as bucket:
        yield Lab(world, tap, bucket, clock, environment(tap, bucket, **env))
