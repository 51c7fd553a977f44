"""Windows → backlog: first the gaps that earlier runs left, then from the cursor to now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from tap_forensics.clock import Clock, Deadline, iso, whole_second
from tap_forensics.errors import OutOfTime, RateLimited, Refused, TryLater, Unavailable
from tap_forensics.figures import Figures
from tap_forensics.held import HeldState
from tap_forensics.settings import Settings
from tap_forensics.siem import Reading, read_window
from tap_forensics.state import State, add_gap, add_lost, add_threat, close_gap, count_attempt
from tap_forensics.tap import Tap, patiently
from tap_forensics.windows import EDGE_MARGIN, Window, oldest_askable, plan_span, plan_windows, widened

_ATTEMPTS = 3
_GAP_ATTEMPTS = 2
_DOWN_AFTER = 3
# Runs that stand still before three windows in a row; then these become gaps, so that a few hours which can
# never be read do not keep all later ones waiting until the API forgets them.
_STALLS_AT_MOST = 3
_GAPS_SHARE = 3
_STEP_BACK = timedelta(seconds=60)


class _Ended(Enum):
    """How asking for one window ended, where it gave no reading."""

    FAILED = "no answer"
    LOST = "refused for good"
    WAIT = "too young to be asked for"


@dataclass
class Discovery:
    """What the steps below share; `seen` are the ids of this run, `unread` the latest windows in vain."""

    held: HeldState
    tap: Tap
    settings: Settings
    clock: Clock
    deadline: Deadline
    log: logging.Logger
    figures: Figures
    waiting: Callable[[Exception, float], None]
    seen: set[str] = field(default_factory=set)
    unread: list[Window] = field(default_factory=list)


def discover(run: Discovery) -> TryLater | None:
    """Reads gaps and windows onto the backlog; gives what ended it early, if anything did.

    The cursor passes only what was read, or recorded as a gap or as lost. Raises `CredentialsRefused`.
    """
    now = run.clock.now()
    stopped_by = None
    try:
        _expire_gaps(run, now)
        _read_gaps(run)
        _read_windows(run, now)
    except TryLater as error:
        _record_unread(run)
        stopped_by = error
    run.figures.threats_found = len(run.seen)
    run.log.info("Found %d unique threat IDs", len(run.seen))
    return stopped_by


def _expire_gaps(run: Discovery, now: datetime) -> None:
    """What lies beyond the API's 7 days can no longer be asked for."""
    oldest = oldest_askable(now)
    with run.held.changing() as state:
        gone = [gap.window() for gap in state.gaps if gap.start < oldest]
    for window in gone:
        _lose(run, Window(window.start, min(window.end, oldest)), "TAP keeps 7 days only")


def _read_gaps(run: Discovery) -> None:
    """Each gap once, those tried least often first, for a share of the time: new windows come after."""
    share = Deadline.after(run.clock, run.deadline.remaining_seconds() / _GAPS_SHARE)
    with run.held.changing() as state:
        gaps = sorted(state.gaps, key=lambda gap: (gap.attempts, gap.start))
    windows = [part for gap in gaps for part in plan_windows(gap.window()) or [widened(gap.window())]]
    failures = 0
    for window in windows:
        if share.passed() or failures == _DOWN_AFTER:
            return
        failed = _read(run, window, _GAP_ATTEMPTS) is _Ended.FAILED
        failures = failures + 1 if failed else 0
        if failed:
            with run.held.changing() as state:
                count_attempt(state, window)


def _read_windows(run: Discovery, now: datetime) -> None:
    span = _span(run, now)
    run.log.info("Fetching threats from %s to %s", iso(span.start), iso(span.end))
    for window in plan_windows(span):
        ended = _read(run, window, _ATTEMPTS)
        if ended is _Ended.WAIT:
            break
        if ended is _Ended.FAILED:
            run.unread.append(window)
            _raise_if_down(run)
        else:
            _record_unread(run)
            _advance(run, window.end)
    _record_unread(run)


def _span(run: Discovery, now: datetime) -> Window:
    settings = run.settings
    with run.held.changing() as state:
        cursor = state.last_event_time
    span = plan_span(
        cursor,
        now,
        lookback=timedelta(hours=settings.lookback_hours),
        overlap=timedelta(minutes=settings.overlap_minutes),
        lag=timedelta(seconds=settings.end_lag_seconds),
    )
    if span.beyond:
        run.log.log(
            logging.WARNING if cursor is None else logging.ERROR,
            "Warning: Lookback capped to 7 days (TAP API limit): %s can no longer be asked for",
            span.beyond,
        )
        if cursor is not None:
            _lose(run, span.beyond, "TAP keeps 7 days only")
            _advance(run, span.beyond.end)
    return span.window


def _read(run: Discovery, window: Window, attempts: int) -> _Ended | None:
    """One window, or what of it the API accepts, onto the backlog; None where it was read to its end."""
    asked = window
    step = _STEP_BACK
    while asked.long_enough():
        try:
            reading = _ask(run, asked, attempts)
        except Unavailable as error:
            return _failed(run, asked, str(error))
        except Refused as refusal:
            moved = _moved(asked, refusal, step)
            if moved is None:
                return _refused(run, asked, refusal)
            asked, step = moved, step * 2
            continue
        return _took(run, window, asked, reading)
    if asked.start > window.start:
        _lose(run, window, "TAP says it is too far into the past")
        return _Ended.LOST
    return _Ended.WAIT


def _ask(run: Discovery, window: Window, attempts: int) -> Reading:
    if run.deadline.passed():
        raise OutOfTime("the time for reading intervals is used up")
    run.figures.windows += 1
    now = whole_second(run.clock.now())
    return patiently(
        lambda: read_window(run.tap, window, now),
        attempts=attempts,
        deadline=run.deadline,
        waits_for=(Unavailable, RateLimited),
        waiting=run.waiting,
    )


def _moved(window: Window, refusal: Refused, step: timedelta) -> Window | None:
    """Another window to ask for after one of the API's 400 sentences; None for any other refusal."""
    words = refusal.words.lower() if refusal.status == 400 else ""
    if "still current" in words:
        return Window(window.start, max(window.start, window.end - step))
    if "too far into the past" in words:
        return Window(min(window.end, window.start + EDGE_MARGIN * (step / _STEP_BACK)), window.end)
    if "too short" in words:
        return Window(window.start, window.start)
    return None


def _took(run: Discovery, window: Window, asked: Window, reading: Reading) -> _Ended | None:
    if asked.start > window.start:
        _lose(run, Window(window.start, asked.start), "TAP says it is too far into the past")
    run.seen.update(reading.threats)
    run.figures.events += reading.events
    run.figures.odd_entries += reading.odd
    with run.held.changing() as state:
        _add(run, state, reading)
        close_gap(state, asked)
    run.log.info(
        "Interval %s/%s: %d events, %d unique threats so far",
        iso(asked.start),
        iso(asked.end),
        reading.events,
        len(run.seen),
    )
    if reading.odd:
        run.log.info("Passed over %d entries without a usable threat id in %s", reading.odd, asked)
    if asked.end == window.end:
        return None
    _record_unread(run)
    _advance(run, asked.end)
    return _Ended.WAIT


def _add(run: Discovery, state: State, reading: Reading) -> None:
    for threat_id, threat in reading.threats.items():
        run.figures.threats_new += add_threat(state, threat_id, threat)


def _failed(run: Discovery, window: Window, why: str) -> _Ended:
    run.figures.windows_failed += 1
    run.log.warning("Interval %s could not be read and is kept to be asked for again: %s", window, why)
    return _Ended.FAILED


def _refused(run: Discovery, window: Window, refusal: Refused) -> _Ended:
    if refusal.status != 400:
        # Not a word on the window itself: a proxy, a redirect, a path that is gone for a while.
        return _failed(run, window, str(refusal))
    _lose(run, window, str(refusal))
    return _Ended.LOST


def _lose(run: Discovery, window: Window, why: str) -> None:
    """Says and records what will never be read; with it the cursor may pass."""
    run.figures.lost_intervals += 1
    run.log.error("Lost interval %s: its events were not read. %s", window, why)
    with run.held.changing() as state:
        close_gap(state, window)
        add_lost(state, window, why)


def _raise_if_down(run: Discovery) -> None:
    """Three windows in a row: the rest waits and the cursor stays, for a few runs."""
    if len(run.unread) < _DOWN_AFTER:
        return
    with run.held.changing() as state:
        state.stalls += 1
        if state.stalls < _STALLS_AT_MOST:
            run.unread.clear()
    raise Unavailable(f"{_DOWN_AFTER} intervals in a row could not be read: the SIEM API seems to be down")


def _record_unread(run: Discovery) -> None:
    for window in run.unread:
        with run.held.changing() as state:
            add_gap(state, window, run.clock.now())
        _advance(run, window.end)
    run.unread.clear()


def _advance(run: Discovery, end: datetime) -> None:
    with run.held.changing() as state:
        state.stalls = 0
        if state.last_event_time is None or end > state.last_event_time:
            state.last_event_time = end
