"""Windows → backlog: first the gaps that earlier runs left, then from the cursor to now."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from tap_forensics.asking import Discovery, Ended, advance, lose, probe, read, record_unread
from tap_forensics.clock import Deadline, iso, whole_second
from tap_forensics.errors import TryLater, Unavailable
from tap_forensics.state import add_gap, count_attempt
from tap_forensics.windows import (
    SHORTEST,
    Window,
    around,
    oldest_askable,
    plan_span,
    plan_windows,
    widened,
)

_ATTEMPTS = 3
_GAP_ATTEMPTS = 2
_DOWN_AFTER = 3
# Runs that stand still before three windows in a row; then these become gaps, so that a few hours which can
# never be read do not keep all later ones waiting until the API forgets them.
_STALLS_AT_MOST = 3
_GAPS_SHARE = 3
_PIECES_SHARE = 0.5


def discover(run: Discovery) -> TryLater | None:
    """Reads gaps and windows onto the backlog; gives what ended it early, if anything did.

    The cursor passes only what was read, or recorded as a gap or as lost. Raises `CredentialsRefused`.
    """
    now = run.clock.now()
    stopped_by = None
    try:
        _expire_gaps(run, now)
        _raise_if_still_silent(run, now)
        _read_gaps(run)
        _read_windows(run, now)
    except TryLater as error:
        record_unread(run)
        stopped_by = error
    _tell_silence(run)
    run.figures.threats_found = len(run.seen)
    run.log.info("Found %d unique threat IDs", len(run.seen))
    return stopped_by


def _expire_gaps(run: Discovery, now: datetime) -> None:
    """What lies beyond the API's 7 days can no longer be asked for."""
    oldest = oldest_askable(now)
    with run.held.changing() as state:
        gone = [gap.window() for gap in state.gaps if gap.start < oldest]
    for window in gone:
        lose(run, Window(window.start, min(window.end, oldest)), "TAP keeps 7 days only")


def _raise_if_still_silent(run: Discovery, now: datetime) -> None:
    """After a run without any answer, one short question comes first: a broken API polled every five minutes
    must not eat the day's calls. The cursor stays meanwhile.
    """
    with run.held.changing() as state:
        silent = state.silent
    end = whole_second(now - timedelta(seconds=run.settings.end_lag_seconds))
    if silent and not probe(run, Window(end - SHORTEST, end)):
        run.figures.windows_failed += 1
        raise Unavailable("the SIEM API gave no answer to the last runs, and gives none now")


def _tell_silence(run: Discovery) -> None:
    with run.held.changing() as state:
        if run.alive:
            state.silent = 0
        elif run.figures.windows_failed:
            state.silent += 1


def _read_gaps(run: Discovery) -> None:
    """Each gap once, those tried least often first, for a share of the time: new windows come after."""
    share = run.pieces_until = Deadline.after(run.clock, run.deadline.remaining_seconds() / _GAPS_SHARE)
    with run.held.changing() as state:
        due = [gap for gap in state.gaps if gap.due(run.clock.now())]
        gaps = sorted(due, key=lambda gap: (gap.attempts, gap.start))
    windows = [part for gap in gaps for part in plan_windows(gap.window()) or [widened(gap.window())]]
    run.figures.windows_planned += len(windows)
    failures = 0
    for window in windows:
        if share.passed() or failures == _DOWN_AFTER:
            return
        ended = read(run, window, _GAP_ATTEMPTS)
        failures = failures + 1 if ended is Ended.FAILED else 0
        if ended in (Ended.FAILED, Ended.PARTLY):
            with run.held.changing() as state:
                count_attempt(state, window, run.clock.now())


def _read_windows(run: Discovery, now: datetime) -> None:
    span = _span(run, now)
    run.log.info("Fetching threats from %s to %s", iso(span.start), iso(span.end))
    run.pieces_until = Deadline.after(run.clock, run.deadline.remaining_seconds() * _PIECES_SHARE)
    windows = _windows_beside_gaps(run, span)
    run.figures.windows_planned += len(windows)
    for window in windows:
        ended = read(run, window, _ATTEMPTS)
        if ended is Ended.WAIT:
            break
        if ended is Ended.FAILED:
            run.unread.append(window)
            _raise_if_down(run)
        else:
            record_unread(run)
            advance(run, window.end)
    record_unread(run)


def _windows_beside_gaps(run: Discovery, span: Window) -> list[Window]:
    """What is a gap was asked for as one; what is too short to be asked for beside it is joined to it."""
    with run.held.changing() as state:
        pieces = around(span, [gap.window() for gap in state.gaps])
        for piece in pieces:
            if not piece.long_enough() and piece.end < span.end:
                add_gap(state, piece, run.clock.now())
    return [window for piece in pieces for window in plan_windows(piece)]


def _span(run: Discovery, now: datetime) -> Window:
    settings = run.settings
    lookback = timedelta(hours=settings.lookback_hours)
    with run.held.changing() as state:
        cursor = state.last_event_time
    span = plan_span(
        cursor,
        now,
        lookback=now - settings.since_time if settings.since_time else lookback,
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
            lose(run, span.beyond, "TAP keeps 7 days only")
            advance(run, span.beyond.end)
    return span.window


def _raise_if_down(run: Discovery) -> None:
    """Three windows in a row: the rest waits and the cursor stays, for a few runs."""
    if len(run.unread) < _DOWN_AFTER:
        return
    with run.held.changing() as state:
        state.stalls += 1
        if state.stalls < _STALLS_AT_MOST:
            run.unread.clear()
    raise Unavailable(f"{_DOWN_AFTER} intervals in a row could not be read: the SIEM API seems to be down")
