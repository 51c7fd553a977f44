"""The fakes that unit tests share: a clock that moves only when told, a log that keeps what it was told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tap_forensics.clock import Clock
from tap_forensics.config.settings import Settings, load_settings

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
PRINCIPAL, SECRET = "demo-principal", "demo-secret"
REQUIRED = {"GCS_BUCKET": "demo-bucket", "TAP_PRINCIPAL": PRINCIPAL, "TAP_SECRET": SECRET}


def configured(**variables: str) -> Settings:
    """Settings from the required variables and these."""
    return load_settings(REQUIRED | variables)


class FakeTime:
    """Stands still but for `sleep` and `advance`; `on_sleep` is called at each sleep, before time moves."""

    def __init__(self, start: datetime = NOW) -> None:
        self._start = start
        self._seconds = 0.0
        self._lock = threading.Lock()
        self.sleeps: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self.clock = Clock(self.now, self.monotonic, self.sleep)

    def monotonic(self) -> float:
        return self._seconds

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._seconds)

    def sleep(self, seconds: float) -> None:
        self.on_sleep()
        with self._lock:
            self.sleeps.append(seconds)
            self._seconds += seconds

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds


class KeptLog(logging.Handler):
    """Keeps every record, and gives the logger to pass on."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.logger = logging.Logger("kept", logging.INFO)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def said(self, level: int = logging.DEBUG) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= level]
