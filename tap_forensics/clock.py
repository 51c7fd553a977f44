"""The only place where time is read or waited for."""

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
    """`now` is aware UTC; `monotonic` and `sleep` are in seconds. Tests pass their own three."""

    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock after which nothing new is begun."""

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
    """Calls `action` on a daemon thread each `seconds` until the returned function is called."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(seconds):
            action()

    # A thread starts with an empty context; execution_id for the log lives in the event's.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(loop,), name="every", daemon=True).start()
    return stop.set


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with `Z`, to the second where it is whole: how TAP writes and reads an interval."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def parse_iso(text: str) -> datetime:
    """Aware UTC from ISO 8601; a moment without an offset counts as UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time before the year 1 or after 9999") from None


def floor_to_second(moment: datetime) -> datetime:
    return moment - timedelta(microseconds=moment.microsecond)
