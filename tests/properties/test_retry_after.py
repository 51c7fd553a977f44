from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.tap.retry import parse_retry_after

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
almost_dates = st.from_regex(
    r"((Mon|Tue), )?[0-9]{0,5}[ -](Jan|Feb|Foo)[ -][0-9]{0,6} "
    r"[0-9]{0,3}:[0-9]{0,3}(:[0-9]{0,3})? ?([+-][0-9]{0,6}|GMT|EST)?",
    fullmatch=True,
)


@given(st.integers(1, 999_999_999), st.text(alphabet=" \t", max_size=3))
def test_seconds_are_taken_as_they_are(seconds: int, space: str) -> None:
    assert parse_retry_after(f"{space}{seconds}{space}", NOW) == seconds


@given(st.integers(1, 10**9))
def test_a_date_ahead_is_the_time_until_then(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(date, NOW) == seconds


@given(st.integers(0, 10**9))
def test_a_date_that_is_not_ahead_is_none(seconds: int) -> None:
    date = format_datetime(NOW - timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(date, NOW) is None


@given(st.integers(max_value=0).map(str) | st.floats().map(str) | st.integers(min_value=10**9).map(str))
def test_no_wait_a_negative_one_and_one_without_end_are_none(text: str) -> None:
    assert parse_retry_after(text, NOW) is None


@given(st.text() | almost_dates | st.text(alphabet="0123456789,: +-GMT") | st.none())
def test_garbage_never_raises_and_never_gives_a_time_that_is_not_ahead(text: str | None) -> None:
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or seconds > 0
