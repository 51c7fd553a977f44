"""Reads one window: its threats go to the backlog, its events to the event objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from tap_forensics.clock import Deadline, floor_to_second, iso
from tap_forensics.context import RunContext
from tap_forensics.discovery.event_writer import EventWriter
from tap_forensics.discovery.siem import Reading, read_window
from tap_forensics.errors import DeadlineExceeded, RequestRejected, Unavailable
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.open_items import (
    MOST_SUMMARIES,
    MOST_THREATS,
    add_summary,
    add_threat,
    close,
    drop_surplus,
    drop_surplus_summaries,
    fail,
    split_off,
    unplan,
)
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import SIEM
from tap_forensics.tap.rate_limit import call_rate_limited
from tap_forensics.tap.retry import retry
from tap_forensics.tap.windows import EDGE_MARGIN, Window, bisect

_STEP_BACK = timedelta(seconds=60)
# Smaller pieces are not retried on their own: with a small quota, their calls would be missing elsewhere.
_MIN_SPLIT = timedelta(minutes=20)


@dataclass
class Discovery:
    """What the steps of discovery share. `events` is None if events are not collected.

    `answered`: TAP itself has answered a window in this run. `threat_ids`: found in this run.
    """

    run: RunContext
    client: TapClient
    deadline: Deadline
    events: EventWriter | None
    answered: bool = False
    threat_ids: set[str] = field(default_factory=set)


def read_open_window(
    discovery: Discovery, window: Window, attempts: int
) -> Unavailable | RequestRejected | None:
    """Requests a window. The part that TAP answers is recorded and closed; the rest stays open.

    Returns the error if there was no answer; it counts as a failed attempt. Raises `DeadlineExceeded`,
    `RateLimited`, `QuotaExceeded` and `AuthenticationFailed`: these do not count as an attempt.
    """
    requested, step = window, _STEP_BACK
    while requested.is_long_enough():
        try:
            _record(discovery, requested, _request(discovery, requested, attempts))
        except RequestRejected as error:
            shorter = _shortened(requested, error, step)
            if shorter is None:
                return _count_failure(discovery, requested, error)
            requested, step = shorter, step * 2
            continue
        except Unavailable as error:
            return _count_failure(discovery, requested, error)
        break
    # The next run plans what is too recent again. What is too old stays open until it expires.
    with discovery.run.store.transaction() as state:
        unplan(state, Window(requested.end, window.end))
    return None


def _request(discovery: Discovery, window: Window, attempts: int) -> Reading:
    """Requests exactly this window. Raises as `read_window`."""
    run = discovery.run
    if discovery.deadline.passed():
        raise DeadlineExceeded("the time for reading windows is over")
    run.stats.windows += 1
    now, client = floor_to_second(run.clock.now()), discovery.client
    settings, events = run.settings, discovery.events is not None
    threats = settings.forensics.enabled or settings.summaries.prefix is not None

    def read_once() -> Reading:
        return read_window(client, window, now, threats=threats, events=events)

    return retry(
        lambda: call_rate_limited(client.limiters[SIEM], read_once, run.before_sleep),
        attempts=attempts,
        deadline=discovery.deadline,
        before_sleep=run.before_sleep,
        may_retry=lambda: client.may_retry(SIEM),
    )


def _record(discovery: Discovery, window: Window, reading: Reading) -> None:
    """Records TAP's answer for a window. Its events are written before the state changes."""
    run = discovery.run
    discovery.answered = True
    if discovery.events:
        discovery.events.add(reading, window)
    discovery.threat_ids.update(reading.threats)
    run.stats.events += reading.events
    run.stats.odd_entries += reading.odd
    with run.store.transaction() as state:
        if run.settings.forensics.enabled:
            for threat_id, threat in reading.threats.items():
                run.stats.threats_new += add_threat(state, threat_id, threat)
        if run.settings.summaries.prefix is not None:
            for threat_id, summary in reading.summaries.items():
                add_summary(state, threat_id, summary)
        surplus, without_summary = drop_surplus(state), drop_surplus_summaries(state)
        close(state, window)
    run.log.info(
        "Interval %s/%s: %d events, %d unique threats so far",
        iso(window.start),
        iso(window.end),
        reading.events,
        len(discovery.threat_ids),
    )
    if reading.odd:
        run.log.info("Skipped %d entries without a valid threat ID in %s", reading.odd, window)
    _log_surplus(run, surplus, without_summary)


def _log_surplus(run: RunContext, threats: Iterable[str], without_summary: Iterable[str]) -> None:
    for threat_id in threats:
        run.stats.threats_given_up += 1
        run.log.error(
            "Gave up threat %s: the backlog has over %d threats", escape_unprintable(threat_id), MOST_THREATS
        )
    for threat_id in without_summary:
        run.log.error(
            "Gave up the summary of threat %s: over %d are open",
            escape_unprintable(threat_id),
            MOST_SUMMARIES,
        )


def bisect_window(discovery: Discovery, window: Window, calls: int) -> int:
    """Reads a window that was too heavy for TAP in smaller and smaller halves, depth first.

    Each piece takes one of the `calls`; returns how many are left. If the quota ends it, later runs retry the
    large pieces one by one. Raises `Unavailable` if even the smallest piece has no answer, and TAP has
    answered no other window in this run.
    """
    pieces = bisect(window)[::-1]
    while pieces and calls and discovery.client.may_retry(SIEM):
        piece = pieces.pop()
        calls -= 1
        discovery.run.stats.extra_calls += 1
        try:
            _record(discovery, piece, _request(discovery, piece, attempts=1))
        except RequestRejected:
            continue
        except Unavailable as error:
            smaller = bisect(piece)[::-1] if error.heavy else []
            if not smaller and not discovery.answered:
                raise Unavailable(f"even {piece} could not be read: the SIEM API seems to be down") from None
            pieces += smaller
    if calls and discovery.answered:
        _split(discovery, pieces)
    return calls


def _split(discovery: Discovery, pieces: list[Window]) -> None:
    with discovery.run.store.transaction() as state:
        for piece in pieces:
            if piece.end - piece.start >= _MIN_SPLIT:
                split_off(state, piece)


def _shortened(window: Window, error: RequestRejected, step: timedelta) -> Window | None:
    """A shorter window after one of TAP's documented 400 sentences; None after any other response."""
    words = error.words.lower() if error.status == 400 else ""
    if "still current" in words:
        return Window(window.start, max(window.start, window.end - step))
    if "too far into the past" in words:
        return Window(min(window.end, window.start + EDGE_MARGIN * (step / _STEP_BACK)), window.end)
    if "too short" in words:
        return Window(window.start, window.start)
    return None


def _count_failure(
    discovery: Discovery, window: Window, error: Unavailable | RequestRejected
) -> Unavailable | RequestRejected:
    run = discovery.run
    run.stats.windows_failed += 1
    with run.store.transaction() as state:
        fail(state, window, run.clock.now())
    run.log.warning("Interval %s could not be read; will retry: %s", window, error)
    return error
