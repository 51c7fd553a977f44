from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.tap.windows import (
    EDGE_MARGIN,
    MAX_WINDOW,
    MIN_WINDOW,
    RETENTION,
    Window,
    oldest_start,
    plan_range,
    plan_windows,
)

SECOND = timedelta(seconds=1)

moments = st.timedeltas(timedelta(0), timedelta(days=7000)).map(
    lambda since: datetime(2020, 1, 1, tzinfo=UTC) + since
)
spans = st.builds(
    lambda start, seconds: Window(start, start + seconds * SECOND),
    moments.map(lambda moment: moment.replace(microsecond=0)),
    st.integers(0, 200) | st.integers(0, 700_000),
)
ages = st.timedeltas(timedelta(hours=-2), timedelta(days=10)) | st.timedeltas(
    timedelta(days=6, hours=23), timedelta(days=7, hours=2)
)
overlaps = st.integers(0, 1440).map(lambda minutes: timedelta(minutes=minutes))
lags = st.integers(0, 3600).map(lambda seconds: timedelta(seconds=seconds))
lookbacks = st.integers(1, 400).map(lambda hours: timedelta(hours=hours))


def whole(moment: datetime) -> bool:
    return moment.microsecond == 0


@given(spans)
def test_windows_tile_their_span_exactly(span: Window) -> None:
    windows = plan_windows(span)
    if not windows:
        assert span.end - span.start < MIN_WINDOW
        return
    assert (windows[0].start, windows[-1].end) == (span.start, span.end)
    assert all(left.end == right.start for left, right in itertools.pairwise(windows))


@given(spans)
def test_a_window_is_never_shorter_than_thirty_seconds_nor_longer_than_an_hour(span: Window) -> None:
    for window in plan_windows(span):
        assert MIN_WINDOW <= window.end - window.start <= MAX_WINDOW
        assert whole(window.start)
        assert whole(window.end)


@given(spans)
def test_no_fewer_windows_would_do(span: Window) -> None:
    windows = plan_windows(span)
    assert (len(windows) - 1) * MAX_WINDOW < span.end - span.start or not windows


@given(moments)
def test_the_oldest_second_that_may_be_asked_is_the_first_inside_the_margin(now: datetime) -> None:
    oldest, edge = oldest_start(now), now - RETENTION + EDGE_MARGIN
    assert whole(oldest)
    assert edge <= oldest < edge + SECOND


@given(moments, ages, overlaps, lags)
def test_a_later_run_reads_from_the_overlap_to_the_lag_inside_seven_days(
    now: datetime, age: timedelta, overlap: timedelta, lag: timedelta
) -> None:
    cursor = now - age
    window = plan_range(cursor, now, lookback=MAX_WINDOW, overlap=overlap, lag=lag).window
    assert whole(window.start)
    assert whole(window.end)
    assert oldest_start(now) <= window.start <= window.end
    assert window.start <= max(cursor - overlap, oldest_start(now))
    assert window.end > now - lag - SECOND
    assert window.end <= now - lag or window.end == window.start


@given(moments, ages, overlaps, lags)
def test_beyond_is_exactly_what_lies_between_the_cursor_and_what_may_be_asked(
    now: datetime, age: timedelta, overlap: timedelta, lag: timedelta
) -> None:
    cursor = now - age
    span = plan_range(cursor, now, lookback=MAX_WINDOW, overlap=overlap, lag=lag)
    if cursor >= oldest_start(now):
        assert span.expired is None
        assert span.window.start <= cursor
    else:
        assert span.expired == Window(cursor.replace(microsecond=0), span.window.start)


@given(moments, lookbacks, overlaps, lags)
def test_a_first_run_reads_its_lookback_or_names_what_of_it_is_gone(
    now: datetime, lookback: timedelta, overlap: timedelta, lag: timedelta
) -> None:
    span = plan_range(None, now, lookback=lookback, overlap=overlap, lag=lag)
    wanted = (now - lookback).replace(microsecond=0)
    assert span.window.start == max(wanted, oldest_start(now))
    assert (span.expired is None) == (lookback <= RETENTION)
    if span.expired:
        assert span.expired == Window(wanted, span.window.start)


@given(
    moments,
    st.timedeltas(timedelta(0), timedelta(days=7)),
    st.timedeltas(timedelta(hours=-3), timedelta(hours=3)),
    overlaps,
)
def test_a_clock_that_steps_between_two_runs_leaves_no_second_unread(
    now: datetime, age: timedelta, step: timedelta, overlap: timedelta
) -> None:
    first = plan_range(now - age, now, lookback=MAX_WINDOW, overlap=overlap, lag=timedelta(0))
    cursor = first.window.end
    later = plan_range(cursor, now + step, lookback=MAX_WINDOW, overlap=overlap, lag=timedelta(0))
    assert later.window.start <= cursor
