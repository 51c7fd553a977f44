from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tap_forensics.tap.windows import (
    EDGE_MARGIN,
    RETENTION,
    ReadRange,
    Window,
    oldest_start,
    pad,
    plan_range,
    plan_windows,
)
from tests.support.clocks import NOW

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


def span_from(cursor: datetime | None, lookback: timedelta = HOUR) -> ReadRange:
    return plan_range(cursor, NOW, lookback=lookback, overlap=HOUR, lag=MINUTE)


def test_a_window_reads_as_the_api_wants_an_interval() -> None:
    assert str(Window(NOW, NOW + HOUR)) == "2026-03-04T10:00:00Z/2026-03-04T11:00:00Z"


def test_a_first_run_reads_its_lookback_up_to_the_lag() -> None:
    assert span_from(None) == ReadRange(Window(NOW - HOUR, NOW - MINUTE), None)


def test_a_later_run_reads_back_over_the_overlap() -> None:
    cursor = NOW - 2 * HOUR
    assert span_from(cursor) == ReadRange(Window(cursor - HOUR, NOW - MINUTE), None)


def test_a_lookback_of_all_seven_days_is_no_loss() -> None:
    span = span_from(None, RETENTION)
    assert (span.window.start, span.expired) == (NOW - RETENTION + EDGE_MARGIN, None)


def test_a_longer_lookback_names_what_the_api_no_longer_has() -> None:
    span = span_from(None, timedelta(days=10))
    assert span.expired == Window(NOW - timedelta(days=10), NOW - RETENTION + EDGE_MARGIN)


def test_an_old_cursor_names_the_interval_from_the_cursor_on() -> None:
    cursor = NOW - timedelta(days=8)
    assert span_from(cursor).expired == Window(cursor, NOW - RETENTION + EDGE_MARGIN)


def test_an_overlap_that_reaches_over_the_edge_is_no_loss() -> None:
    cursor = NOW - RETENTION + EDGE_MARGIN
    assert span_from(cursor) == ReadRange(Window(cursor, NOW - MINUTE), None)


def test_a_cursor_in_the_future_counts_as_now() -> None:
    assert span_from(NOW + 2 * HOUR) == ReadRange(Window(NOW - MINUTE - HOUR, NOW - MINUTE), None)


def test_the_oldest_second_is_rounded_into_what_may_be_asked() -> None:
    assert oldest_start(NOW + timedelta(microseconds=1)) == NOW - RETENTION + EDGE_MARGIN + SECOND


@pytest.mark.parametrize(
    ("seconds", "windows"), [(29, 0), (30, 1), (3600, 1), (3601, 2), (7200, 2), (7 * 86400, 168)]
)
def test_a_span_takes_the_fewest_windows(seconds: int, windows: int) -> None:
    assert len(plan_windows(Window(NOW, NOW + seconds * SECOND))) == windows


def test_what_is_left_of_a_gap_is_widened_to_thirty_seconds() -> None:
    assert pad(Window(NOW, NOW + SECOND)) == Window(NOW, NOW + 30 * SECOND)


def test_a_window_that_is_long_enough_is_not_widened() -> None:
    assert pad(Window(NOW, NOW + MINUTE)) == Window(NOW, NOW + MINUTE)
