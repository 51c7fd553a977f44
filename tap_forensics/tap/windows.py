"""The windows to request from the SIEM API. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tap_forensics.clock import floor_to_second, iso

# Proofpoint's TAP SIEM API documentation: at least 30 s, at most 1 h, starting at most 7 days back.
MIN_WINDOW = timedelta(seconds=30)
MAX_WINDOW = timedelta(hours=1)
RETENTION = timedelta(days=7)
# The 7-day edge moves during a run; a start this far inside it avoids a 400.
EDGE_MARGIN = timedelta(minutes=5)


@dataclass(frozen=True, order=True)
class Window:
    """Half-open, aware UTC, in whole seconds: start ≤ t < end."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{iso(self.start)}/{iso(self.end)}"

    def is_long_enough(self) -> bool:
        return self.end - self.start >= MIN_WINDOW


@dataclass(frozen=True)
class ReadRange:
    """What a run reads: `window` may be empty; `expired` is what the API no longer returns, or None."""

    window: Window
    expired: Window | None


def oldest_start(now: datetime) -> datetime:
    """The earliest whole second at which a window may start."""
    edge = now - RETENTION + EDGE_MARGIN
    second = floor_to_second(edge)
    return second if second == edge else second + timedelta(seconds=1)


def plan_range(
    cursor: datetime | None, now: datetime, *, lookback: timedelta, overlap: timedelta, lag: timedelta
) -> ReadRange:
    """From the cursor less the overlap to now less the lag; without a cursor from now less the lookback.
    The start is at most 7 days back.

    `expired` starts at the cursor: everything before it was planned earlier. A cursor in the future counts as
    now less the lag.
    """
    cursor = cursor and min(cursor, now - lag)
    requested = now - lookback if cursor is None else cursor - overlap
    unread = requested if cursor is None else cursor
    start = max(floor_to_second(requested), oldest_start(now))
    end = max(start, floor_to_second(now - lag))
    fits = cursor is None and lookback <= RETENTION
    expired = None if fits or unread >= start else Window(floor_to_second(unread), start)
    return ReadRange(Window(start, end), expired)


def plan_windows(span: Window) -> list[Window]:
    """Splits a span into the fewest windows of equal length (to the second) that the API accepts.

    Equal parts leave no remainder under 30 s. A span under 30 s returns none: the next run plans it.
    """
    if not span.is_long_enough():
        return []
    seconds = int((span.end - span.start).total_seconds())
    count = -(-seconds // int(MAX_WINDOW.total_seconds()))
    edges = [span.start + timedelta(seconds=seconds * i // count) for i in range(count + 1)]
    return [Window(start, end) for start, end in itertools.pairwise(edges)]


def subtract(span: Window, holes: Iterable[Window]) -> list[Window]:
    """The parts of a span outside all holes, in order."""
    pieces = [span]
    for hole in holes:
        pieces = [
            piece
            for before in pieces
            for piece in (
                Window(before.start, min(before.end, hole.start)),
                Window(max(before.start, hole.end), before.end),
            )
            if piece.start < piece.end
        ]
    return sorted(set(pieces))


def pad(window: Window) -> Window:
    """Extends a window past its end to 30 s: for the rest of a gap at the 7-day edge."""
    return Window(window.start, max(window.end, window.start + MIN_WINDOW))


def bisect(window: Window) -> list[Window]:
    """Two halves of at least 30 s each; none if the window is too short."""
    middle = window.start + timedelta(seconds=int((window.end - window.start).total_seconds()) // 2)
    parts = [Window(window.start, middle), Window(middle, window.end)]
    return parts if all(part.is_long_enough() for part in parts) else []
