"""Threats → reports: N workers fetch, and their outcomes come out in order of arrival."""

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
# So many threats in a row without one answer: the API is down, and the rest would only cost calls.
_FAILURES_IN_A_ROW = 20
_LARGEST_GENERATED_BYTES = 100
# The threat's report and its campaigns'. Each becomes a line, which is much more than the least report.
_MOST_REPORTS = 2_000
_MOMENT_SECONDS = 0.25


class _Body(msgspec.Struct):
    generated: msgspec.Raw = msgspec.Raw()
    reports: list[Fields] | msgspec.UnsetType | None = msgspec.UNSET


class _OddBody(msgspec.Struct):
    """Where not every report is an object: each is looked at on its own."""

    generated: msgspec.Raw = msgspec.Raw()
    reports: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


_body = msgspec.json.Decoder(_Body)
_odd_body = msgspec.json.Decoder(_OddBody)


@dataclass(frozen=True)
class Fetched:
    """A threat's reports as they came; who takes them empties the list. `release` as in `Answer`."""

    threat_id: str
    generated: msgspec.Raw | None
    reports: list[Fields] | list[msgspec.Raw]
    release: Callable[[], None]


@dataclass(frozen=True)
class Skipped:
    """TAP itself answered that there is nothing to fetch for this threat."""

    threat_id: str


@dataclass(frozen=True)
class Rejected:
    """A 404 or 400: final if TAP answered another threat in this run, and else perhaps not TAP's own."""

    threat_id: str
    status: int
    why: str


@dataclass(frozen=True)
class Failed:
    """No usable answer for this threat, this time. `too_large`: there was one, so the API is not down."""

    threat_id: str
    why: str
    too_large: bool = False


class _Done:
    """A worker's last word."""


Outcome = Fetched | Skipped | Rejected | Failed


@dataclass
class WorkerPool:
    """The workers' common ground. `ended_by` is why they stopped before the last threat, if they did.

    `failed_before` are asked once, the others up to three times. `proven`: TAP itself answered a threat.
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
    """Yields one outcome a threat until all are done or the fan-out ends; then `ended_by` tells why.
    None means that nothing came for a moment.

    At most `workers` calls are in flight and as many outcomes wait to be taken. Closing the generator stops
    the workers.
    """
    left = iter(threat_ids)
    outcomes: queue.Queue[Outcome | _Done] = queue.Queue(maxsize=workers)
    stop = threading.Event()

    def work() -> None:
        try:
            _work(pool, left, outcomes, stop)
        finally:
            _hand_over(outcomes, _Done(), stop)

    running = 0
    try:
        for _ in range(workers):
            # A thread starts with an empty context; execution_id for the log lives in the event's.
            threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
            running += 1
        while running:
            outcome: Outcome | _Done | None
            try:
                outcome = outcomes.get(timeout=_MOMENT_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(outcome, _Done):
                running -= 1
            else:
                yield outcome
            # Nothing of a body may stay here while the next one is waited for.
            outcome = None
    finally:
        stop.set()


def _work(
    pool: WorkerPool, left: Iterator[str], outcomes: queue.Queue[Outcome | _Done], stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            # The next threat may need a commit first, which can fail, too.
            with pool.lock:
                threat_id = None if pool.stop_reason else next(left, None)
            if threat_id is None:
                return
            _hand_over(outcomes, _counted(pool, _outcome(pool, threat_id)), stop)
        except Exception as error:  # noqa: BLE001 - carried to the run's thread, which raises it
            with pool.lock:
                pool.stop_reason = pool.stop_reason or error
            return


def _hand_over(
    outcomes: queue.Queue[Outcome | _Done], outcome: Outcome | _Done, stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            outcomes.put(outcome, timeout=0.2)
        except queue.Full:
            continue
        return


def _outcome(pool: WorkerPool, threat_id: str) -> Outcome:
    """Raises what ends the fan-out: refused credentials, a lasting 429, no calls or time left."""
    try:
        return retry(
            lambda: _ask(pool, threat_id),
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


def _ask(pool: WorkerPool, threat_id: str) -> Outcome:
    answer = call_rate_limited(
        pool.client.limiters[FORENSICS], lambda: pool.client.forensics(threat_id), pool.before_sleep
    )
    release = answer.release
    try:
        outcome = _read(answer, threat_id)
        pool.proven = True
    except Exception as error:
        # What holds the body must be gone before another takes its memory.
        del answer
        error.__traceback__ = error.__context__ = None
        release()
        raise
    if not isinstance(outcome, Fetched):
        release()
    return outcome


def _read(answer: TapResponse, threat_id: str) -> Outcome:
    if answer.status == 204:
        return Skipped(threat_id)
    try:
        body = _decode(sanitize_utf8(answer.body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("the answer is not the JSON that TAP documents") from None
    if body.reports is msgspec.UNSET:
        raise Unavailable("the response has no reports: it is not what TAP documents")
    if not body.reports:
        return Skipped(threat_id)
    number = len(body.reports)
    if number > _MOST_REPORTS:
        raise TooLarge(f"an answer of {number} reports is none of TAP's")
    return Fetched(threat_id, _generated(body.generated), body.reports, answer.release)


def _counted(pool: WorkerPool, outcome: Outcome) -> Outcome:
    with pool.lock:
        unproven = isinstance(outcome, Rejected) and not pool.proven
        failed = unproven or (isinstance(outcome, Failed) and not outcome.too_large)
        pool.failures_in_a_row = pool.failures_in_a_row + 1 if failed else 0
        if pool.failures_in_a_row >= _FAILURES_IN_A_ROW:
            pool.stop_reason = pool.stop_reason or Unavailable(
                f"{_FAILURES_IN_A_ROW} threats in a row had no usable answer: the API seems to be down"
            )
    return outcome


def _decode(body: bytes) -> _Body | _OddBody:
    try:
        return _body.decode(body)
    except msgspec.ValidationError:
        return _odd_body.decode(body)


def _generated(raw: msgspec.Raw) -> msgspec.Raw | None:
    """TAP's time text, as it came and apart from the body; anything else is no time."""
    is_text = 2 < len(bytes(raw)) <= _LARGEST_GENERATED_BYTES and bytes(raw).startswith(b'"')
    return raw.copy() if is_text else None
