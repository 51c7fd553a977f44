"""How all workers together meet a 429."""

from __future__ import annotations

import threading

from tap_forensics.clock import Clock, Deadline
from tap_forensics.errors import DeadlineExceeded, RateLimited

LONGEST_RETRY_AFTER_SECONDS = 300
_FIRST_BACKOFF_SECONDS = 1.0
_NOTHING_BUT_429_SECONDS = 30
_TURN_SECONDS = 0.2


class RateLimiter:
    """Open until a 429; then shut for all, and opened again by one call that is let through to try.

    A `Retry-After` up to 300 s is obeyed if the deadline allows. Without a usable one the wait starts at
    1 s and doubles, and after 30 s of nothing but 429 the gate stays shut. With `one_call` the first call
    is the try, and its 429 is the end.
    """

    def __init__(self, clock: Clock, deadline: Deadline, *, probe_only: bool = False) -> None:
        self._clock, self._deadline, self._one_call = clock, deadline, probe_only
        self._lock = threading.Lock()
        self._shut = probe_only
        self._trying = False
        self._opens_at = clock.monotonic()
        self._shut_since: float | None = None
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        self._age = 0
        self.ever_succeeded = False

    def acquire(self) -> int:
        """Waits for a turn and gives a ticket for `passed`, `limited` or `left`.

        Raises `OutOfTime` at the deadline, `RateLimited` where the gate stays shut.
        """
        while True:
            with self._lock:
                self._raise_if_over()
                if not self._shut or (not self._trying and self._clock.monotonic() >= self._opens_at):
                    self._trying = self._shut
                    return self._age
            self._clock.sleep(_TURN_SECONDS)

    def succeeded(self, epoch: int) -> None:
        """The API answered with something else than 429: open for all, if that call was the try."""
        with self._lock:
            self.ever_succeeded = True
            self._one_call = False
            if epoch == self._age:
                self._shut = self._trying = False
                self._shut_since = None
                self._backoff_seconds = _FIRST_BACKOFF_SECONDS

    def aborted(self, epoch: int) -> None:
        """The call ended without an answer: the next one may try."""
        with self._lock:
            if epoch == self._age:
                self._trying = False

    def rate_limited(self, epoch: int, retry_after_seconds: float | None) -> float | None:
        """A 429: shuts the gate and gives the seconds it stays shut; None where it was shut already.

        Raises `RateLimited` where it will not open again in this run.
        """
        with self._lock:
            if epoch != self._age:
                return None
            self._age += 1
            self._shut, self._trying = True, False
            wait = self._wait_seconds(retry_after_seconds)
            self._opens_at = self._clock.monotonic() + wait
            self._raise_if_over()
            return wait

    def _wait_seconds(self, retry_after_seconds: float | None) -> float:
        now = self._clock.monotonic()
        if self._shut_since is None:
            self._shut_since = now
        if retry_after_seconds is not None and retry_after_seconds <= LONGEST_RETRY_AFTER_SECONDS:
            wait = retry_after_seconds
        else:
            wait, self._backoff_seconds = self._backoff_seconds, self._backoff_seconds * 2
        if self._one_call or now - self._shut_since >= _NOTHING_BUT_429_SECONDS:
            return float("inf")
        return wait

    def _raise_if_over(self) -> None:
        if self._opens_at == float("inf"):
            raise RateLimited("TAP goes on answering 429; the rest waits for the next run", lasting=True)
        if self._shut and self._opens_at >= self._deadline.at_seconds:
            raise RateLimited("TAP answered 429, and waiting for it would end after the run's deadline")
        if self._deadline.passed():
            raise DeadlineExceeded("the run's deadline came first")
