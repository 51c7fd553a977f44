"""Everything that can go wrong, by what it means for the run.

    CollectorError
    ├── LeaseHeld                 another run is at work; there is nothing to do
    ├── RunFailed                 give up the run; the state stays as it was committed last
    │   ├── InvalidSettings       a variable or the message is missing or wrong; nothing was called
    │   ├── AuthenticationFailed  TAP answered 401 or 403
    │   ├── StateUnreadable       the state object is neither ours nor the published function's, or is newer
    │   ├── LeaseLost             another run took the state over
    │   └── StorageFailed         the bucket could not be read or written
    ├── Retryable                 the answer cannot be had now; gap or backlog keeps the question
    │   ├── Unavailable           5xx, time-out, reset, a body cut or unreadable
    │   │   └── TooLarge          an answer over the limit of size; asking again would bring the same
    │   ├── RateLimited           429, and waiting for it is not worth this run's time
    │   ├── QuotaExceeded         our own count of calls says stop
    │   └── DeadlineExceeded      the run's own deadline
    └── RequestRejected           this question will not be answered (400, 404 and whatever is unexpected)

No message holds a credential: none is ever given to one of these, nor a piece of what the other side sent.
"""

from __future__ import annotations


class CollectorError(Exception):
    """The root of the tree above."""


class LeaseHeld(CollectorError):
    """Another run holds the lease. `missed_renewal`: it seems to have died, so a later try is worth it."""

    def __init__(self, message: str, *, missed_renewal: bool = False) -> None:
        super().__init__(message)
        self.missed_renewal = missed_renewal


class RunFailed(CollectorError):
    """The run ends here and says so; what it had committed stands."""


class InvalidSettings(RunFailed):
    """One or more settings are wrong; `faults` holds one sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class AuthenticationFailed(RunFailed):
    """TAP refused the service principal or its secret."""


class StateUnreadable(RunFailed):
    """The state object cannot be understood; it is left untouched."""


class LeaseLost(RunFailed):
    """The state was committed by another run since we read it."""


class StorageFailed(RunFailed):
    """The bucket could not be read or written."""


class Retryable(CollectorError):
    """The answer cannot be had now."""


class Unavailable(Retryable):
    """The API did not give a usable answer; `retry_after_seconds` is its own wish, if it named one.

    `heavy`: the question may be too much for it (5xx, time-out); a smaller one may be answered.
    """

    def __init__(
        self, message: str, retry_after_seconds: float | None = None, *, heavy: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.heavy = heavy


class TooLarge(Unavailable):
    """The API answered, with more than we take."""

    def __init__(self, message: str) -> None:
        super().__init__(message, heavy=True)


class RateLimited(Retryable):
    """TAP answered 429; `retry_after_seconds` is None where it named no usable time.

    `lasting`: nothing but 429 for so long that the limit is to be remembered.
    """

    def __init__(
        self, message: str, retry_after_seconds: float | None = None, *, lasting: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.lasting = lasting


class QuotaExceeded(Retryable):
    """The call ledger has no call left in this pool."""


class DeadlineExceeded(Retryable):
    """The run's deadline came first."""


class RequestRejected(CollectorError):
    """The answer is no: `status`, and `words` as redact.py tells its body. `html`: the body is a page."""

    def __init__(self, status: int, words: str, *, html: bool = False) -> None:
        super().__init__(f"TAP answered {status}: {words or '(no body)'}")
        self.status = status
        self.words = words
        self.html = html
