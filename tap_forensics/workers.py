"""Requests → outcomes: N workers make the calls, and the outcomes are yielded in order of arrival."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from tap_forensics.clock import Deadline
from tap_forensics.errors import RequestRejected, TooLarge, Unavailable
from tap_forensics.storage.state import OpenItem
from tap_forensics.tap.client import TapClient, TapResponse
from tap_forensics.tap.rate_limit import call_rate_limited
from tap_forensics.tap.retry import retry

_ATTEMPTS = 3
# Consecutive failures before the API counts as down: more calls would only use up the quota.
_MAX_FAILURES_IN_A_ROW = 20
_POLL_SECONDS = 0.25
# Requests per worker that are announced with one commit.
_GROUP_SIZE_PER_WORKER = 4


@dataclass(frozen=True)
class Request:
    """One call for a threat, or for the campaign that it shares with others.

    `item`: the open item that counts attempts and kills. `linked_campaign`: the threat's campaign, if known.
    """

    threat_id: str
    item: OpenItem
    campaign: str | None = None
    linked_campaign: str | None = None

    @property
    def name(self) -> str:
        return self.campaign or self.threat_id


@dataclass(frozen=True)
class Fetched:
    """TAP's own answer, with content. `release` as in `TapResponse`."""

    request: Request
    release: Callable[[], None]


@dataclass(frozen=True)
class Skipped:
    """TAP itself answered that it has nothing."""

    request: Request


@dataclass(frozen=True)
class Rejected:
    """A 404 or 400. It is final only if TAP answers another request in this run: it may not be TAP's own."""

    request: Request
    status: int
    reason: str


@dataclass(frozen=True)
class Failed:
    """No usable response. `too_large`: there was a response, so the API is not down."""

    request: Request
    reason: str
    too_large: bool = False


class _Done:
    """A worker has ended."""


Outcome = Fetched | Skipped | Rejected | Failed


@dataclass
class WorkerPool:
    """What the workers share. `quota_pool` counts the calls. `parse` raises `Unavailable` for a response that
    is not TAP's.

    `stop_reason`: why they stopped before the last request, if they did. `proven`: TAP itself answered one.
    """

    client: TapClient
    quota_pool: str
    call: Callable[[Request], TapResponse]
    parse: Callable[[TapResponse, Request], Fetched | Skipped]
    deadline: Deadline
    before_sleep: Callable[[Exception, float], None]
    proven: bool = False
    stop_reason: Exception | None = None
    failures_in_a_row: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def announced(
    requests: list[Request], workers: int, announce: Callable[[list[Request]], None]
) -> Iterator[Request]:
    """The requests one by one. `announce` gets each group before its first request is made."""
    remaining = iter(requests)
    while group := list(islice(remaining, _GROUP_SIZE_PER_WORKER * workers)):
        announce(group)
        yield from group


def fetch_all(pool: WorkerPool, requests: Iterable[Request], workers: int) -> Generator[Outcome | None]:
    """Yields one outcome per request, until all are done or the pool stops (see `stop_reason`). Yields None
    if there is no outcome for a moment.

    At most `workers` calls are in flight, and at most as many outcomes are queued. Closing the generator
    stops the workers.
    """
    remaining = iter(requests)
    outcomes: queue.Queue[Outcome | _Done] = queue.Queue(maxsize=workers)
    stop = threading.Event()

    def work() -> None:
        try:
            _work(pool, remaining, outcomes, stop)
        finally:
            _put(outcomes, _Done(), stop)

    running = 0
    try:
        for _ in range(workers):
            # A new thread has an empty context; the log takes execution_id from the context of the event.
            threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
            running += 1
        while running:
            outcome: Outcome | _Done | None
            try:
                outcome = outcomes.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(outcome, _Done):
                running -= 1
            else:
                yield outcome
            # Frees the body before the wait for the next one.
            outcome = None
    finally:
        stop.set()


def _work(
    pool: WorkerPool,
    remaining: Iterator[Request],
    outcomes: queue.Queue[Outcome | _Done],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            # The next request may need a commit first, which can fail too.
            with pool.lock:
                request = None if pool.stop_reason else next(remaining, None)
            if request is None:
                return
            outcome = _fetch(pool, request)
            _count_failure(pool, outcome)
            _put(outcomes, outcome, stop)
            del outcome  # frees its body before the next request
        except Exception as error:  # noqa: BLE001 - carried to the run's thread, which raises it
            with pool.lock:
                pool.stop_reason = pool.stop_reason or error
            return


def _put(outcomes: queue.Queue[Outcome | _Done], outcome: Outcome | _Done, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            outcomes.put(outcome, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
        return


def _fetch(pool: WorkerPool, request: Request) -> Outcome:
    """Raises what stops the pool: refused credentials, a lasting 429, no calls or no time left."""
    try:
        return retry(
            lambda: _request(pool, request),
            attempts=1 if request.item.attempts else _ATTEMPTS,
            deadline=pool.deadline,
            before_sleep=pool.before_sleep,
            may_retry=lambda: pool.client.may_retry(pool.quota_pool),
        )
    except Unavailable as error:
        return Failed(request, str(error), isinstance(error, TooLarge))
    except RequestRejected as error:
        if error.status in (400, 404) and not error.html:
            return Rejected(request, error.status, str(error))
        return Failed(request, str(error))


def _request(pool: WorkerPool, request: Request) -> Outcome:
    response = call_rate_limited(
        pool.client.limiters[pool.quota_pool], lambda: pool.call(request), pool.before_sleep
    )
    release = response.release
    try:
        outcome = pool.parse(response, request)
        pool.proven = True
    except Exception as error:
        # The traceback keeps the body alive: clear it before its memory counts as free.
        del response
        error.__traceback__ = error.__context__ = None
        release()
        raise
    if not isinstance(outcome, Fetched):
        release()
    return outcome


def _count_failure(pool: WorkerPool, outcome: Outcome) -> None:
    with pool.lock:
        unproven = isinstance(outcome, Rejected) and not pool.proven
        failed = unproven or (isinstance(outcome, Failed) and not outcome.too_large)
        pool.failures_in_a_row = pool.failures_in_a_row + 1 if failed else 0
        if pool.failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            pool.stop_reason = pool.stop_reason or Unavailable(
                f"{_MAX_FAILURES_IN_A_ROW} threats in a row had no usable response: the API seems to be down"
            )
