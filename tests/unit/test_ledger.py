from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from tap_forensics.errors import QuotaSpent
from tap_forensics.tap.quota import FORENSICS, SIEM, Ledger, Pool, Standing, counting, counts_until

from .fakes import NOW

DAY = timedelta(days=1)


def ledger_with(limit: int | None, pools: dict[str, Pool] | None = None) -> Ledger:
    return Ledger(pools or {}, {SIEM: 1800, FORENSICS: limit})


def taken(ledger: Ledger, calls: int) -> None:
    for _ in range(calls):
        ledger.take(FORENSICS, NOW)


def test_a_pool_gives_its_limit_and_no_call_more() -> None:
    ledger = ledger_with(3)
    taken(ledger, 3)
    with pytest.raises(QuotaSpent, match="all 3 forensics calls of the last 24 hours are used"):
        ledger.take(FORENSICS, NOW)
    assert ledger.made == {SIEM: 0, FORENSICS: 3}


def test_pools_are_counted_apart() -> None:
    ledger = ledger_with(1)
    taken(ledger, 1)
    ledger.take(SIEM, NOW)
    assert ledger.made == {SIEM: 1, FORENSICS: 1}


def test_without_a_limit_every_call_is_counted_and_none_refused() -> None:
    ledger = ledger_with(None)
    taken(ledger, 5000)
    assert sum(ledger.dump()[FORENSICS].buckets.values()) == 5000


def test_a_call_counts_for_a_day_and_ten_minutes_at_most() -> None:
    ledger = ledger_with(1)
    taken(ledger, 1)
    with pytest.raises(QuotaSpent):
        ledger.take(FORENSICS, NOW + DAY - timedelta(seconds=1))
    ledger.take(FORENSICS, NOW + DAY + timedelta(minutes=10))


def test_a_limit_that_was_lowered_holds_for_calls_made_before() -> None:
    before = ledger_with(10)
    taken(before, 5)
    with pytest.raises(QuotaSpent):
        ledger_with(5, before.dump()).take(FORENSICS, NOW)


def test_refused_calls_are_counted_apart() -> None:
    ledger = ledger_with(None)
    ledger.saw_429(FORENSICS)
    assert (ledger.refused, ledger.made) == ({SIEM: 0, FORENSICS: 1}, {SIEM: 0, FORENSICS: 0})


def test_a_pool_never_limited_is_open() -> None:
    assert ledger_with(None).standing(FORENSICS, NOW) is Standing.OPEN


@pytest.mark.parametrize(
    ("minutes", "standing"),
    [
        (0, Standing.CLOSED),
        (54, Standing.CLOSED),
        (55, Standing.ONE_CALL),
        (60, Standing.ONE_CALL),
        (6000, Standing.ONE_CALL),
    ],
)
def test_after_a_lasting_429_the_next_hours_run_may_try_one_call(minutes: int, standing: Standing) -> None:
    ledger = ledger_with(None)
    ledger.limit_met(FORENSICS, NOW)
    assert ledger.standing(FORENSICS, NOW + timedelta(minutes=minutes)) is standing


def test_a_limit_that_is_gone_is_forgotten() -> None:
    ledger = ledger_with(None)
    ledger.limit_met(FORENSICS, NOW)
    ledger.limit_gone(FORENSICS)
    assert ledger.standing(FORENSICS, NOW) is Standing.OPEN


def test_a_limit_met_in_the_future_does_not_close_the_pool_after_the_clock_was_set_back() -> None:
    ledger = ledger_with(None)
    ledger.limit_met(FORENSICS, NOW + DAY)
    assert ledger.standing(FORENSICS, NOW) is Standing.OPEN


def test_an_explicit_limit_overrides_what_was_learned() -> None:
    learned = ledger_with(None)
    learned.limit_met(FORENSICS, NOW)
    assert ledger_with(50, learned.dump()).standing(FORENSICS, NOW) is Standing.OPEN


def test_with_an_explicit_limit_nothing_is_learned() -> None:
    ledger = ledger_with(50)
    ledger.limit_met(FORENSICS, NOW)
    assert ledger.dump()[FORENSICS].limited_at is None


def test_a_dump_is_a_copy() -> None:
    ledger = ledger_with(None)
    dump = ledger.dump()
    taken(ledger, 1)
    assert dump[FORENSICS].buckets == {}


def test_calls_booked_far_ahead_by_a_wrong_clock_do_not_close_a_pool_for_years() -> None:
    ahead = ledger_with(10)
    for _ in range(10):
        ahead.take(FORENSICS, NOW + 3650 * DAY)
    later = ledger_with(10, ahead.dump())
    later.take(FORENSICS, NOW + 2 * DAY)


def test_threads_together_take_exactly_the_limit() -> None:
    ledger = ledger_with(500)
    refused: list[QuotaSpent] = []

    def take_a_hundred() -> None:
        for _ in range(100):
            try:
                ledger.take(FORENSICS, NOW)
            except QuotaSpent as spent:
                refused.append(spent)

    threads = [threading.Thread(target=take_a_hundred) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (ledger.made[FORENSICS], len(refused)) == (500, 300)


def test_what_is_left_is_told_where_a_limit_is_set_and_comes_back_when_its_bucket_does() -> None:
    ledger = ledger_with(10)
    taken(ledger, 3)
    assert ledger.left(FORENSICS, NOW) == 7
    (bucket,) = counting(ledger.dump()[FORENSICS], NOW)
    back = counts_until(bucket)
    assert ledger.left(FORENSICS, back - timedelta(seconds=1)) == 7
    assert ledger.left(FORENSICS, back) == 10
    assert ledger_with(None).left(FORENSICS, NOW) is None
