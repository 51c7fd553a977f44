"""Threats → reports: N workers fetch them, and their outcomes are yielded in order of arrival."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from tap_forensics.clock import Deadline
from tap_forensics.errors import RequestRejected, TooLarge, Unavailable
from tap_forensics.records.ndjson import Fields, sanitize_utf8
from tap_forensics.tap.client import TapClient, TapResponse
from tap_forensics.tap.quota import FORENSICS
from tap_forensics.tap.rate_limit import call_rate_limited
from tap_forensics.tap.retry import retry

_ATTEMPTS = 3
# Consecutive failures before the API counts as down: more calls would only use up the quota.
_MAX_FAILURES_IN_A_ROW = 20
_MAX_GENERATED_BYTES = 100
# The threat's report and those of its campaigns. Each becomes a line, which is much larger than the smallest
# report.
_MAX_REPORTS = 2_000
_POLL_SECONDS = 0.25


class _Body(msgspec.Struct):
    generated: msgspec.Raw = msgspec.Raw()
    reports: list[Fields] | msgspec.UnsetType | None = msgspec.UNSET


class _OddBody(msgspec.Struct):
    """A body with a report that is not an object: each report is checked separately."""

    generated: msgspec.Raw = msgspec.Raw()
    reports: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


_body = msgspec.json.Decoder(_Body)
_odd_body = msgspec.json.Decoder(_OddBody)


@dataclass(frozen=True)
class Fetched:
    """A threat's reports as TAP sent them; the writer empties the list. `release` as in `TapResponse`."""

    threat_id: str
    generated: msgspec.Raw | None
    reports: list[Fields] | list[msgspec.Raw]
    release: Callable[[], None]


@dataclass(frozen=True)
class Skipped:
    """TAP itself answered that this threat has no reports."""

    threat_id: str


@dataclass(frozen=True)
class Rejected:
    """A 404 or 400. It is final only if TAP answers another threat in this run: it may not be TAP's own."""

    threat_id: str
    status: int
    reason: str


@dataclass(frozen=True)
class Failed:
    """No usable response for this threat. `too_large`: there was a response, so the API is not down."""

    threat_id: str
    reason: str
    too_large: bool = False


class _Done:
    """A worker has ended."""


Outcome = Fetched | Skipped | Rejected | Failed


@dataclass
class WorkerPool:
    """What the workers share. `stop_reason`: why they stopped before the last threat, if they did.

    A threat in `failed_before` gets one attempt, others up to three. `proven`: TAP itself answered a threat.
    """

    client: TapClient
    deadline: Deadline
    before_sleep: Callable[[Exception, float], None]
    failed_before: Container[str] = ()
    proven: bool = False
    stop_reason: Exception | None = None
    failures_in_a_row: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def fetch_forensics(pool: WorkerPool, threat_ids: Iterable[str], workers: int) -> Generator[Outcome | None]:
    """Yields one outcome per threat, until all are done or the pool stops (see `stop_reason`). Yields None
    if there is no outcome for a moment.

    At most `workers` calls are in flight, and at most as many outcomes are queued. Closing the generator
    stops the workers.
    """
    remaining = iter(threat_ids)
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
    pool: WorkerPool, remaining: Iterator[str], outcomes: queue.Queue[Outcome | _Done], stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            # The next threat may need a commit first, which can fail too.
            with pool.lock:
                threat_id = None if pool.stop_reason else next(remaining, None)
            if threat_id is None:
                return
            outcome = _fetch(pool, threat_id)
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


def _fetch(pool: WorkerPool, threat_id: str) -> Outcome:
    """Raises what stops the pool: refused credentials, a lasting 429, no calls or no time left."""
    try:
        return retry(
            lambda: _request(pool, threat_id),
            attempts=1 if threat_id in pool.failed_before else _ATTEMPTS,
            deadline=pool.deadline,
            before_sleep=pool.before_sleep,
            may_retry=lambda: pool.client.may_retry(FORENSICS),
        )
    except Unavailable as error:
        return Failed(threat_id, str(error), isinstance(error, TooLarge))
    except RequestRejected as error:
        if error.status in (400, 404) and not error.html:
            return Rejected(threat_id, error.status, str(error))
        return Failed(threat_id, str(error))


def _request(pool: WorkerPool, threat_id: str) -> Outcome:
    response = call_rate_limited(
        pool.client.limiters[FORENSICS], lambda: pool.client.forensics(threat_id), pool.before_sleep
    )
    release = response.release
    try:
        outcome = _parse(response, threat_id)
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


def _parse(response: TapResponse, threat_id: str) -> Outcome:
    if response.status == 204:
        return Skipped(threat_id)
    try:
        body = _decode(sanitize_utf8(response.body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("the response is not the JSON that TAP documents") from None
    if body.reports is msgspec.UNSET:
        raise Unavailable("the response has no reports: it is not what TAP documents")
    if not body.reports:
        return Skipped(threat_id)
    number = len(body.reports)
    if number > _MAX_REPORTS:
        raise TooLarge(f"a response with {number} reports is not from TAP")
    return Fetched(threat_id, _generated(body.generated), body.reports, response.release)


def _count_failure(pool: WorkerPool, outcome: Outcome) -> None:
    with pool.lock:
        unproven = isinstance(outcome, Rejected) and not pool.proven
        failed = unproven or (isinstance(outcome, Failed) and not outcome.too_large)
        pool.failures_in_a_row = pool.failures_in_a_row + 1 if failed else 0
        if pool.failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            pool.stop_reason = pool.stop_reason or Unavailable(
                f"{_MAX_FAILURES_IN_A_ROW} threats in a row had no usable response: the API seems to be down"
            )


def _decode(body: bytes) -> _Body | _OddBody:
    try:
        return _body.decode(body)
    except msgspec.ValidationError:
        return _odd_body.decode(body)


def _generated(raw: msgspec.Raw) -> msgspec.Raw | None:
    """TAP's time as a JSON string, copied so that it does not keep the body alive; None for anything else."""
    is_text = 2 < len(bytes(raw)) <= _MAX_GENERATED_BYTES and bytes(raw).startswith(b'"')
    return raw.copy() if is_text else None
