"""The only module that reads the time or sleeps."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Clock:
    """`now` returns aware UTC; `monotonic` and `sleep` use seconds. Tests pass their own functions."""

    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Deadline:
    """A time on the monotonic clock. Nothing new starts after it."""

    clock: Clock
    at_seconds: float

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> Deadline:
        return cls(clock, clock.monotonic() + seconds)

    def remaining_seconds(self) -> float:
        return self.at_seconds - self.clock.monotonic()

    def passed(self) -> bool:
        return self.remaining_seconds() <= 0


def run_periodically(seconds: float, action: Callable[[], None]) -> Callable[[], None]:
    """Calls `action` on a daemon thread every `seconds` until the returned function is called."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(seconds):
            action()

    # A new thread has an empty context; the log's execution_id is in the caller's context.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(loop,), name="run_periodically", daemon=True).start()
    return stop.set


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with `Z`, as in TAP's intervals; milliseconds only if there is a fraction."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def parse_iso(text: str) -> datetime:
    """Aware UTC from ISO 8601; without an offset the time is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time before the year 1 or after 9999") from None


def floor_to_second(moment: datetime) -> datetime:
    return moment - timedelta(microseconds=moment.microsecond)
