"""A world, the stand-in for TAP, a real bucket and a clock that can be moved: what one test runs against."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tap_forensics.clock import Clock
from tap_forensics.collect import RunOptions, collect
from tap_forensics.config.settings import load_settings
from tap_forensics.errors import LeaseHeld, RunFailed
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.stats import RunStats
from tap_forensics.storage.numbered_objects import BATCH_BYTES
from tests.support.lab_bucket import LabBucket, Through

STATE = "state/tap-forensics/state.json"
HANDOVER = "tap-forensics/state.json"
SIEM = "/v2/siem/all"
FORENSICS = "/v2/forensics"
START = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)


class LabClock:
    """Runs with the real clock and jumps over every sleep; `advance` moves it, back too.

    `now` is TAP's time, `bucket_now` the bucket's, which never steps back. `clock` is the function's own: it
    is off by `skewed`.
    """

    def __init__(self, now: datetime = START) -> None:
        self._origin = now
        self._began = time.monotonic()
        self._skipped = 0.0
        self._stepped = self._stepped_back = timedelta()
        self._lock = threading.Lock()
        self.skewed = timedelta()
        self.clock = Clock(lambda: self.now() + self.skewed, self.monotonic, self.sleep)

    def monotonic(self) -> float:
        return time.monotonic() - self._began + self._skipped

    def now(self) -> datetime:
        return self._origin + self._stepped + timedelta(seconds=self.monotonic())

    def bucket_now(self) -> datetime:
        return self.now() + self._stepped_back

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._skipped += seconds
        time.sleep(0.001)

    def advance(self, **by: float) -> None:
        step = timedelta(**by)
        self._stepped += step
        self._stepped_back += max(-step, timedelta())


class Lines(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@dataclass
class Ran:
    """What one run said and how it ended."""

    stats: RunStats | None
    error: RunFailed | None
    records: list[logging.LogRecord]

    def said(self, level: int = logging.DEBUG) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= level]

    def says(self, words: str, level: int = logging.DEBUG) -> bool:
        return any(words in line for line in self.said(level))

    @property
    def good(self) -> RunStats:
        if self.error:
            raise AssertionError("the run failed") from self.error
        assert self.stats is not None
        return self.stats

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
    time: LabClock
    env: dict[str, str] = field(default_factory=dict)
    transferred: list[tuple[str, bytes]] = field(default_factory=list)
    batch_bytes: int = BATCH_BYTES

    def run(self, **env: str) -> Ran:
        handler = Lines()
        log = logging.Logger("lab", logging.DEBUG)
        log.addHandler(handler)
        settings, options = load_settings({**self.env, **env}), RunOptions(batch_bytes=self.batch_bytes)
        try:
            collect(settings, self.bucket.client, self.time.clock, log, options)
        except LeaseHeld:
            pass  # busy, as the figures say
        except RunFailed as error:
            return Ran(None, error, handler.records)
        return Ran(options.stats, None, handler.records)

    def run_until_done(self, most: int = 30) -> list[Ran]:
        """Runs an hour apart until nothing is left for the next."""
        runs = []
        for _ in range(most):
            runs.append(self.run())
            if runs[-1].stats and runs[-1].stats.outcome == "complete":
                return runs
            self.time.advance(hours=1)
        raise AssertionError(f"still not done: {runs[-1].said(logging.WARNING)}")

    def skew(self, seconds: float) -> None:
        """From now on the function's own clock is off by so much; TAP's and the bucket's are right."""
        self.time.skewed = timedelta(seconds=seconds)

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
        everything = (START - timedelta(days=30), self.time.now())
        shown = self.world.threat_ids_between(*everything, now=self.time.now())
        return {name for name in shown if self.world.threats[name].answer == "report"}


@contextmanager
def lab(world: World | None = None, *, now: datetime = START, **env: str) -> Iterator[Lab]:
    """A lab whose first run reads everything in `world` (default: ten threats in the last hour)."""
    world = world or World.from_threats(10, now=now, report_bytes=2_000)
    clock = LabClock(now)
    with TapServer(world, clock=clock.now) as tap, LabBucket(clock.bucket_now) as bucket:
        given = {
            "GCS_BUCKET": bucket.name,
            "TAP_API_BASE": tap.url,
            "TAP_PRINCIPAL": "demo-principal",
            "TAP_SECRET": "demo-secret",
        }
        yield Lab(world, tap, bucket, clock, {**given, **env})
