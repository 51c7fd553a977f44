"""One window, or what of it can be had, onto the backlog and into the events' objects."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from tap_forensics.clock import Clock, Deadline, iso, whole_second
from tap_forensics.errors import OutOfTime, RateLimited, Refused, TooLarge, Unavailable
from tap_forensics.event_delivery import EventDelivery
from tap_forensics.figures import Figures
from tap_forensics.held import HeldState
from tap_forensics.patience import patiently
from tap_forensics.settings import Settings
from tap_forensics.siem import Reading, read_window
from tap_forensics.state import State, add_gap, add_lost, add_threat, close_gap
from tap_forensics.tap import Tap
from tap_forensics.windows import EDGE_MARGIN, Window, halves

_STEP_BACK = timedelta(seconds=60)
# A broken API must not eat the day's calls.
_MOST_EXTRA_CALLS = 60


class Ended(Enum):
    """How asking for one window ended, where it gave no reading."""

    FAILED = "no answer"
    PARTLY = "some pieces read, the others recorded as gaps"
    READ = "read, in pieces"
    LOST = "refused for good"
    WAIT = "too young to be asked for"


@dataclass
class Discovery:
    """What the steps of discovery share; `seen` are the ids of this run, `unread` the latest windows in vain.

    `events` is None where no event lines are wanted. `alive`: the API gave some answer in this run; `down`:
    it gave none even to the shortest questions, so that smaller ones are not asked any more. Nor are they
    after `pieces_until`: a heavy hour must leave time for the others.
    """

    held: HeldState
    tap: Tap
    settings: Settings
    clock: Clock
    deadline: Deadline
    log: logging.Logger
    figures: Figures
    waiting: Callable[[Exception, float], None]
    events: EventDelivery | None = None
    pieces_until: Deadline = field(init=False)
    alive: bool = False
    down: bool = False
    seen: set[str] = field(default_factory=set)
    unread: list[Window] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pieces_until = self.deadline


def read(run: Discovery, window: Window, attempts: int) -> Ended | None:
    """One window, or what of it the API accepts, onto the backlog; None where it was read to its end."""
    asked = window
    step = _STEP_BACK
    while asked.long_enough():
        try:
            reading = _ask(run, asked, attempts)
        except Unavailable as error:
            return _in_pieces(run, window, asked, error)
        except Refused as refusal:
            moved = _moved(asked, refusal, step)
            if moved is None:
                return _refused(run, asked, refusal)
            asked, step = moved, step * 2
            continue
        return _took(run, window, asked, reading)
    if asked.start > window.start:
        lose(run, window, "TAP says it is too far into the past")
        return Ended.LOST
    return Ended.WAIT


def _ask(run: Discovery, window: Window, attempts: int) -> Reading:
    if run.deadline.passed():
        raise OutOfTime("the time for reading intervals is used up")
    run.figures.windows += 1
    now = whole_second(run.clock.now())
    return patiently(
        lambda: read_window(
            run.tap, window, now, threats=run.settings.forensics, events=run.events is not None
        ),
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


def _took(run: Discovery, window: Window, asked: Window, reading: Reading) -> Ended | None:
    if asked.start > window.start:
        lose(run, Window(window.start, asked.start), "TAP says it is too far into the past")
    _keep(run, asked, reading)
    if asked.end == window.end:
        return None
    record_unread(run)
    advance(run, asked.end)
    return Ended.WAIT


def _keep(run: Discovery, asked: Window, reading: Reading) -> None:
    """What a window held. Its events are durable before the state knows of anything."""
    run.alive = True
    if run.events:
        run.events.take(reading, asked)
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


def _add(run: Discovery, state: State, reading: Reading) -> None:
    for threat_id, threat in reading.threats.items():
        run.figures.threats_new += add_threat(state, threat_id, threat)


def _in_pieces(run: Discovery, window: Window, asked: Window, error: Unavailable) -> Ended:
    """After all attempts: a question that may be too much for the API is asked in halves."""
    unread = _unread_after(run, asked, asked, error)
    if unread == [asked]:
        return _failed(run, asked, str(error))
    if asked.start > window.start:
        lose(run, Window(window.start, asked.start), "TAP says it is too far into the past")
    if asked.end < window.end:
        unread.append(Window(asked.end, window.end))
    with run.held.changing() as state:
        for piece in unread:
            add_gap(state, piece, run.clock.now())
    for piece in unread:
        run.log.warning("Interval %s could not be read and is kept to be asked for again: %s", piece, error)
    run.figures.windows_failed += len(unread)
    return Ended.PARTLY if unread else Ended.READ


def _unread_after(run: Discovery, whole: Window, asked: Window, error: Unavailable) -> list[Window]:
    """What of `asked` cannot be read in pieces either; `[asked]` where that is all of it.

    Depth first, one call a piece, down to the API's 30 s; `whole` is where the descent began.
    """
    run.alive = run.alive or isinstance(error, TooLarge)
    parts = halves(asked) if error.heavy else []
    if not parts:
        _tell_down(run, whole, asked, error)
    unread = [piece for part in parts for piece in _unread_of(run, whole, part)] if parts else [asked]
    return [asked] if unread == parts else unread


def _unread_of(run: Discovery, whole: Window, piece: Window) -> list[Window]:
    try:
        return [] if _piece_read(run, piece) else [piece]
    except Unavailable as error:
        return _unread_after(run, whole, piece, error)


def _piece_read(run: Discovery, piece: Window) -> bool:
    """One extra call, if it may be made. Raises `Unavailable`.

    Being out of time is no reason to ask for the whole again in the next run: the rest becomes a gap.
    """
    if run.down or run.pieces_until.passed() or run.figures.extra_calls >= _MOST_EXTRA_CALLS:
        return False
    run.figures.extra_calls += 1
    try:
        reading = _ask(run, piece, attempts=1)
    except OutOfTime:
        return False
    except Refused as refusal:
        run.alive = run.alive or refusal.status == 400
        return False
    _keep(run, piece, reading)
    return True


def probe(run: Discovery, piece: Window) -> bool:
    """Whether the API answers at all, by one short question; what it answers is kept."""
    try:
        _piece_read(run, piece)
    except Unavailable as error:
        run.alive = run.alive or isinstance(error, TooLarge)
    return run.alive


def _tell_down(run: Discovery, whole: Window, smallest: Window, error: Unavailable) -> None:
    """No answer in this run, down to the shortest question: the other end of the window decides."""
    if run.alive or run.down or not error.heavy or smallest == whole:
        return
    other_end = Window(whole.end - (smallest.end - smallest.start), whole.end)
    run.down = not probe(run, other_end)
    if run.down:
        run.log.warning("Not even %s could be read: no smaller pieces are asked for in this run", other_end)


def _failed(run: Discovery, window: Window, why: str) -> Ended:
    run.figures.windows_failed += 1
    run.log.warning("Interval %s could not be read and is kept to be asked for again: %s", window, why)
    return Ended.FAILED


def _refused(run: Discovery, window: Window, refusal: Refused) -> Ended:
    if refusal.status != 400:
        # Not a word on the window itself: a proxy, a redirect, a path that is gone for a while.
        return _failed(run, window, str(refusal))
    lose(run, window, str(refusal))
    return Ended.LOST


def lose(run: Discovery, window: Window, why: str) -> None:
    """Says and records what will never be read; with it the cursor may pass."""
    run.figures.lost_intervals += 1
    run.log.error("Lost interval %s: its events were not read. %s", window, why)
    with run.held.changing() as state:
        close_gap(state, window)
        add_lost(state, window, why)


def record_unread(run: Discovery) -> None:
    for window in run.unread:
        with run.held.changing() as state:
            add_gap(state, window, run.clock.now())
        advance(run, window.end)
    run.unread.clear()


def advance(run: Discovery, end: datetime) -> None:
    with run.held.changing() as state:
        state.stalls = 0
        if state.last_event_time is None or end > state.last_event_time:
            state.last_event_time = end
