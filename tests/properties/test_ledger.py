from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.errors import QuotaSpent
from tap_forensics.storage.state import VERSION, State, decode, encode
from tap_forensics.tap.quota import FORENSICS, SIEM, Ledger

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)
BUCKET = timedelta(minutes=10)

pauses = st.sampled_from([0, 1, 299, 600, 3600, 43_000, 80_000, 86_399, 86_400]) | st.integers(0, 90_000)
limits = st.integers(1, 8)


def carried_over(ledger: Ledger, limit: int | None) -> Ledger:
    """The ledger of the next run, which knows of this one only what the state says."""
    stored = decode(encode(State(VERSION, calls=ledger.dump())), "here", NOW)
    return Ledger(stored.calls, {SIEM: 1800, FORENSICS: limit})


@given(limits, st.lists(st.tuples(pauses, st.booleans()), max_size=60))
def test_no_24_hours_ever_hold_more_calls_than_the_limit_and_none_is_refused_for_long(
    limit: int, steps: list[tuple[int, bool]]
) -> None:
    now, made = NOW, list[datetime]()
    ledger = Ledger({}, {SIEM: 1800, FORENSICS: limit})
    for pause, new_run in steps:
        now += timedelta(seconds=pause)
        if new_run:
            ledger = carried_over(ledger, limit)
        try:
            ledger.take(FORENSICS, now)
        except QuotaSpent:
            assert sum(call > now - DAY - BUCKET for call in made) >= limit
        else:
            made.append(now)
        assert sum(call > now - DAY for call in made) <= limit


@given(st.lists(pauses, max_size=400))
def test_the_state_keeps_a_day_of_buckets_at_most(steps: list[int]) -> None:
    now = NOW
    ledger = Ledger({}, {SIEM: None, FORENSICS: None})
    for pause in steps:
        now += timedelta(seconds=pause)
        ledger.take(FORENSICS, now)
    assert len(ledger.dump()[FORENSICS].buckets) <= DAY / BUCKET + 1


@given(st.lists(st.sampled_from([SIEM, FORENSICS]), max_size=50), st.none() | limits, st.integers(0, 10**6))
def test_a_ledger_reads_the_same_after_a_way_through_the_state(
    calls: list[str], limit: int | None, met_after: int
) -> None:
    ledger = Ledger({}, {SIEM: 1800, FORENSICS: None})
    for name in calls:
        ledger.take(name, NOW)
    ledger.limit_met(FORENSICS, NOW - timedelta(seconds=met_after))
    again = carried_over(ledger, limit)
    assert again.dump() == ledger.dump()
    if limit is None:
        assert again.standing(FORENSICS, NOW) is ledger.standing(FORENSICS, NOW)
