from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.clock import floor_to_second, iso, parse_iso

moments = st.builds(
    lambda since, zone: (datetime(2, 1, 1, tzinfo=UTC) + since).astimezone(zone),
    st.timedeltas(timedelta(0), timedelta(days=365 * 9990)),
    st.just(UTC) | st.timezones(),
)


@given(moments)
def test_a_moment_survives_being_written_and_read_to_the_millisecond(moment: datetime) -> None:
    cut = moment.astimezone(UTC)
    cut = cut.replace(microsecond=cut.microsecond // 1000 * 1000)
    assert parse_iso(iso(moment)) == cut


@given(moments)
def test_a_written_moment_is_utc_and_needs_no_escape_in_a_query_but_its_colons(moment: datetime) -> None:
    assert iso(moment).endswith("Z")
    assert set(iso(moment)) <= set("0123456789-:.TZ")


@given(st.text() | moments.map(str) | moments.map(datetime.isoformat))
def test_what_can_be_read_is_aware_utc(text: str) -> None:
    try:
        moment = parse_iso(text)
    except ValueError:
        return
    assert moment.utcoffset() == timedelta(0)


@given(moments)
def test_a_whole_second_is_the_latest_not_after_the_moment(moment: datetime) -> None:
    second = floor_to_second(moment)
    assert second.microsecond == 0
    assert timedelta(0) <= moment - second < timedelta(seconds=1)
