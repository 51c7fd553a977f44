from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.errors import QuotaExceeded
from tap_forensics.storage.state import VERSION, State, decode, encode
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)
BUCKET = timedelta(minutes=10)

pauses = st.sampled_from([0, 1, 299, 600, 3600, 43_000, 80_000, 86_399, 86_400]) | st.integers(0, 90_000)
limits = st.integers(1, 8)


def carried_over(quota: Quota, limit: int | None) -> Quota:
    """The ledger of the next run, which knows of this one only what the state says."""
    stored = decode(encode(State(VERSION, calls=quota.dump())), "here", NOW)
    return Quota(stored.calls, {SIEM: 1800, FORENSICS: limit})


@given(limits, st.lists(st.tuples(pauses, st.booleans()), max_size=60))
def test_no_24_hours_ever_hold_more_calls_than_the_limit_and_none_is_refused_for_long(
    limit: int, steps: list[tuple[int, bool]]
) -> None:
    now, made = NOW, list[datetime]()
    quota = Quota({}, {SIEM: 1800, FORENSICS: limit})
    for pause, new_run in steps:
        now += timedelta(seconds=pause)
        if new_run:
            quota = carried_over(quota, limit)
        try:
            quota.reserve(FORENSICS, now)
        except QuotaExceeded:
            assert sum(call > now - DAY - BUCKET for call in made) >= limit
        else:
            made.append(now)
        assert sum(call > now - DAY for call in made) <= limit


@given(st.lists(pauses, max_size=400))
def test_the_state_keeps_a_day_of_buckets_at_most(steps: list[int]) -> None:
    now = NOW
    quota = Quota({}, {SIEM: None, FORENSICS: None})
    for pause in steps:
        now += timedelta(seconds=pause)
        quota.reserve(FORENSICS, now)
    assert len(quota.dump()[FORENSICS].buckets) <= DAY / BUCKET + 1


@given(st.lists(st.sampled_from([SIEM, FORENSICS]), max_size=50), st.none() | limits, st.integers(0, 10**6))
def test_a_ledger_reads_the_same_after_a_way_through_the_state(
    calls: list[str], limit: int | None, met_after: int
) -> None:
    quota = Quota({}, {SIEM: 1800, FORENSICS: None})
    for name in calls:
        quota.reserve(name, NOW)
    quota.block(FORENSICS, NOW - timedelta(seconds=met_after))
    again = carried_over(quota, limit)
    assert again.dump() == quota.dump()
    if limit is None:
        assert again.status(FORENSICS, NOW) is quota.status(FORENSICS, NOW)
