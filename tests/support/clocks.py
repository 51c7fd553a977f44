"""The clock that tests move."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tap_forensics.clock import Clock

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)


class MovableClock:
    """Jumps over every sleep. It stands still otherwise; if `running`, real time passes on it too.

    `now` is TAP's time, `bucket_now` the bucket's, which never steps back. `as_clock` is what the code under
    test gets: it is off by `skewed`. `on_sleep` is called at each sleep, before time moves.
    """

    def __init__(self, start: datetime = NOW, *, running: bool = False) -> None:
        self._start, self._running = start, running
        self._began = time.monotonic()
        self._passed_seconds = 0.0
        self._stepped = self._stepped_back = timedelta()
        self._lock = threading.Lock()
        self.sleeps: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self.skewed = timedelta()
        self.as_clock = Clock(lambda: self.now() + self.skewed, self.monotonic, self.sleep)

    def monotonic(self) -> float:
        return self._passed_seconds + (time.monotonic() - self._began if self._running else 0.0)

    def now(self) -> datetime:
        return self._start + self._stepped + timedelta(seconds=self.monotonic())

    def bucket_now(self) -> datetime:
        return self.now() + self._stepped_back

    def sleep(self, seconds: float) -> None:
        self.on_sleep()
        with self._lock:
            self.sleeps.append(seconds)
            self._passed_seconds += seconds
        if self._running:
            # Other threads must get their turn.
            time.sleep(0.001)

    def advance(self, seconds: float) -> None:
        """Time passes."""
        with self._lock:
            self._passed_seconds += seconds

    def step(self, **by: float) -> None:
        """The clock on the wall is moved, back too; nothing of it is seen by `monotonic`."""
        step = timedelta(**by)
        self._stepped += step
        self._stepped_back += max(-step, timedelta())
