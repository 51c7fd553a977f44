"""A rate limiter per pool: after a 429 all calls of the pool wait together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tap_forensics.clock import Clock, Deadline
from tap_forensics.errors import DeadlineExceeded, RateLimited, RequestRejected

T = TypeVar("T")

LONGEST_RETRY_AFTER_SECONDS = 300
_FIRST_BACKOFF_SECONDS = 1.0
_MAX_429_SECONDS = 30
_POLL_SECONDS = 0.2


def call_rate_limited(
    limiter: RateLimiter, call: Callable[[], T], before_sleep: Callable[[Exception, float], None]
) -> T:
    """Makes a call, and retries it after each 429 while the pool's limiter allows the wait.

    Raises as `call` does, and as `RateLimiter.acquire`.
    """
    while True:
        epoch = limiter.acquire()
        try:
            response = call()
        except RateLimited as error:
            seconds = limiter.rate_limited(epoch, error.retry_after_seconds)
            if seconds is not None:
                before_sleep(error, seconds)
            continue
        except RequestRejected:
            limiter.succeeded(epoch)
            raise
        except BaseException:
            limiter.aborted(epoch)
            raise
        limiter.succeeded(epoch)
        return response


class RateLimiter:
    """Allows all calls of a pool until a 429. Then one call at a time may probe, until a probe succeeds.

    A `Retry-After` up to 300 s is obeyed if the deadline allows. Without a usable one the wait starts at
    1 s and doubles. After 30 s with only 429 responses the pool stays blocked for this run. After
    `limit_is_known` a 429 blocks it at once. `deadline` may be earlier than the run's own.

    An epoch is the time between two 429 responses. Each call reports the epoch in which it began, so that
    late responses of an earlier epoch change nothing.
    """

    def __init__(self, clock: Clock, deadline: Deadline) -> None:
        self._clock, self.deadline, self._limit_is_known = clock, deadline, False
        self._lock = threading.Lock()
        self._blocked = False
        self._probing = False
        self._unblocks_at = clock.monotonic()
        self._blocked_since: float | None = None
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        self._epoch = 0
        self.ever_succeeded = False

    def limit_is_known(self, *, probe: bool) -> None:
        """A 429 means that the limit is reached. With `probe` the other calls wait for the first response."""
        with self._lock:
            self._limit_is_known = True
            self._blocked = self._blocked or probe

    def acquire(self) -> int:
        """Waits until a call may be made. Returns the epoch, to report the call's result with.

        Raises `DeadlineExceeded` at the deadline, `RateLimited` if the pool stays blocked.
        """
        while True:
            with self._lock:
                self._raise_if_over()
                if not self._blocked or (not self._probing and self._clock.monotonic() >= self._unblocks_at):
                    self._probing = self._blocked
                    return self._epoch
            self._clock.sleep(_POLL_SECONDS)

    def succeeded(self, epoch: int) -> None:
        """The API did not answer 429. If the call was the probe, the pool is unblocked."""
        with self._lock:
            self.ever_succeeded = True
            if epoch == self._epoch:
                self._blocked = self._probing = False
                self._blocked_since = None
                self._backoff_seconds = _FIRST_BACKOFF_SECONDS

    def aborted(self, epoch: int) -> None:
        """The call ended without a response: the next one may probe."""
        with self._lock:
            if epoch == self._epoch:
                self._probing = False

    def rate_limited(self, epoch: int, retry_after_seconds: float | None) -> float | None:
        """A 429: blocks the pool and returns for how many seconds; None if it was already blocked.

        Raises `RateLimited` if the pool stays blocked for this run.
        """
        with self._lock:
            if epoch != self._epoch:
                return None
            self._epoch += 1
            self._blocked, self._probing = True, False
            wait = self._wait_seconds(retry_after_seconds)
            self._unblocks_at = self._clock.monotonic() + wait
            self._raise_if_over()
            return wait

    def _wait_seconds(self, retry_after_seconds: float | None) -> float:
        now = self._clock.monotonic()
        if self._blocked_since is None:
            self._blocked_since = now
        if retry_after_seconds is not None and retry_after_seconds <= LONGEST_RETRY_AFTER_SECONDS:
            wait = retry_after_seconds
        else:
            wait, self._backoff_seconds = self._backoff_seconds, self._backoff_seconds * 2
        if self._limit_is_known or now - self._blocked_since >= _MAX_429_SECONDS:
            return float("inf")
        return wait

    def _raise_if_over(self) -> None:
        if self._unblocks_at == float("inf"):
            raise RateLimited("TAP keeps answering 429; the rest stays open for the next run", lasting=True)
        if self._blocked and self._unblocks_at >= self.deadline.at_seconds:
            raise RateLimited("TAP answered 429, and the wait would end after the run's deadline")
        if self.deadline.passed():
            raise DeadlineExceeded("the run's deadline came first")
