"""All errors, grouped by what they mean for the run.

    CollectorError
    ├── LeaseHeld                 another run holds the lease; there is nothing to do
    ├── RunFailed                 the run ends; the state stays as it was last committed
    │   ├── InvalidSettings       a variable or the message is missing or wrong; nothing was called
    │   │   └── InvalidCredentials  TAP's principal or secret is missing, empty or malformed
    │   ├── AuthenticationFailed  TAP answered 401 or 403
    │   ├── StateUnreadable       the state object is neither ours nor the published function's, or is newer
    │   ├── LeaseLost             another run took over the state
    │   └── StorageFailed         the bucket could not be read or written
    ├── Retryable                 no response now; the window or threat stays open
    │   ├── Unavailable           5xx, time-out, reset, a truncated or unreadable body
    │   │   └── TooLarge          a response over the size limit; a retry would return the same
    │   ├── RateLimited           429, and the run does not wait for it
    │   ├── QuotaExceeded         our own call quota is used up
    │   └── DeadlineExceeded      the run's own deadline
    └── RequestRejected           400, 404 or an unexpected status; a retry in this run does not help

No message contains a credential, or text that the other side sent.
"""

from __future__ import annotations


class CollectorError(Exception):
    """The root of the tree above."""


class LeaseHeld(CollectorError):
    """Another run holds the lease. `missed_renewal`: it seems to have died, so a retry may succeed."""

    def __init__(self, message: str, *, missed_renewal: bool = False) -> None:
        super().__init__(message)
        self.missed_renewal = missed_renewal


class RunFailed(CollectorError):
    """The run ends and is reported as failed; what it committed stays valid."""


class InvalidSettings(RunFailed):
    """One or more settings are wrong; `faults` has one sentence for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class InvalidCredentials(InvalidSettings):
    """TAP's principal or secret is missing, empty or malformed; perhaps other settings are wrong, too."""


class AuthenticationFailed(RunFailed):
    """TAP rejected the service principal or its secret, or it has no right to the API."""


class StateUnreadable(RunFailed):
    """The state object cannot be decoded; it is not changed."""


class LeaseLost(RunFailed):
    """Another run has committed the state since this run read it."""


class StorageFailed(RunFailed):
    """The bucket could not be read or written."""


class Retryable(CollectorError):
    """There is no response now; a later attempt may succeed."""


class Unavailable(Retryable):
    """The API returned no usable response; `retry_after_seconds` is from its Retry-After, or None.

    `heavy`: the request may be too expensive for the API (5xx, time-out); a smaller one may succeed.
    """

    def __init__(
        self, message: str, retry_after_seconds: float | None = None, *, heavy: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.heavy = heavy


class TooLarge(Unavailable):
    """The response is larger than the memory limit allows."""

    def __init__(self, message: str) -> None:
        super().__init__(message, heavy=True)


class RateLimited(Retryable):
    """TAP answered 429; `retry_after_seconds` is None if the response has no usable Retry-After.

    `lasting`: there were only 429 responses for so long that the state remembers the limit.
    """

    def __init__(
        self, message: str, retry_after_seconds: float | None = None, *, lasting: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.lasting = lasting


class QuotaExceeded(Retryable):
    """The call quota of this pool is used up."""


class DeadlineExceeded(Retryable):
    """The run's deadline passed first."""


class RequestRejected(CollectorError):
    """TAP rejected the request. `words` describes the body (redact.py); `html`: the body is HTML."""

    def __init__(self, status: int, words: str, *, html: bool = False) -> None:
        super().__init__(f"TAP answered {status}: {words or '(no body)'}")
        self.status = status
        self.words = words
        self.html = html
