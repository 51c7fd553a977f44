from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from tap_forensics.errors import QuotaExceeded
from tap_forensics.tap.quota import FORENSICS, SIEM, Pool, PoolStatus, Quota, counted_buckets, counts_until
from tests.support.clocks import NOW

DAY = timedelta(days=1)


def ledger_with(limit: int | None, pools: dict[str, Pool] | None = None) -> Quota:
    return Quota(pools or {}, {SIEM: 1800, FORENSICS: limit})


def taken(quota: Quota, calls: int) -> None:
    for _ in range(calls):
        quota.reserve(FORENSICS, NOW)


def test_a_pool_gives_its_limit_and_no_call_more() -> None:
    quota = ledger_with(3)
    taken(quota, 3)
    with pytest.raises(QuotaExceeded, match="all 3 forensics calls of the last 24 hours are used"):
        quota.reserve(FORENSICS, NOW)
    assert (quota.made[SIEM], quota.made[FORENSICS]) == (0, 3)


def test_pools_are_counted_apart() -> None:
    quota = ledger_with(1)
    taken(quota, 1)
    quota.reserve(SIEM, NOW)
    assert (quota.made[SIEM], quota.made[FORENSICS]) == (1, 1)


def test_without_a_limit_every_call_is_counted_and_none_refused() -> None:
    quota = ledger_with(None)
    taken(quota, 5000)
    assert sum(quota.dump()[FORENSICS].buckets.values()) == 5000


def test_a_call_counts_for_a_day_and_ten_minutes_at_most() -> None:
    quota = ledger_with(1)
    taken(quota, 1)
    with pytest.raises(QuotaExceeded):
        quota.reserve(FORENSICS, NOW + DAY - timedelta(seconds=1))
    quota.reserve(FORENSICS, NOW + DAY + timedelta(minutes=10))


def test_a_limit_that_was_lowered_holds_for_calls_made_before() -> None:
    before = ledger_with(10)
    taken(before, 5)
    with pytest.raises(QuotaExceeded):
        ledger_with(5, before.dump()).reserve(FORENSICS, NOW)


def test_refused_calls_are_counted_apart() -> None:
    quota = ledger_with(None)
    quota.count_429(FORENSICS, NOW)
    assert (quota.refused[SIEM], quota.refused[FORENSICS]) == (0, 1)
    assert not any(quota.made.values())


def test_a_pool_never_limited_is_open() -> None:
    assert ledger_with(None).status(FORENSICS, NOW) is PoolStatus.ALLOWED


@pytest.mark.parametrize(
    ("minutes", "standing"),
    [
        (0, PoolStatus.BLOCKED),
        (54, PoolStatus.BLOCKED),
        (55, PoolStatus.PROBE),
        (60, PoolStatus.PROBE),
        (6000, PoolStatus.PROBE),
    ],
)
def test_after_a_lasting_429_the_next_hours_run_may_try_one_call(minutes: int, standing: PoolStatus) -> None:
    quota = ledger_with(None)
    quota.block(FORENSICS, NOW)
    assert quota.status(FORENSICS, NOW + timedelta(minutes=minutes)) is standing


def test_a_limit_that_is_gone_is_forgotten() -> None:
    quota = ledger_with(None)
    quota.block(FORENSICS, NOW)
    taken(quota, 1)  # the probe, which was answered
    quota.unblock(FORENSICS, NOW)
    assert quota.status(FORENSICS, NOW) is PoolStatus.ALLOWED
    assert quota.left(FORENSICS, NOW) is None


def test_a_limit_met_in_the_future_does_not_close_the_pool_after_the_clock_was_set_back() -> None:
    quota = ledger_with(None)
    quota.block(FORENSICS, NOW + DAY)
    assert quota.status(FORENSICS, NOW) is PoolStatus.ALLOWED


def test_an_explicit_limit_overrides_what_was_learned() -> None:
    learned = ledger_with(None)
    learned.block(FORENSICS, NOW)
    assert ledger_with(50, learned.dump()).status(FORENSICS, NOW) is PoolStatus.ALLOWED


def test_with_an_explicit_limit_nothing_is_learned() -> None:
    quota = ledger_with(50)
    quota.block(FORENSICS, NOW)
    assert quota.dump()[FORENSICS].limited_at is None


def test_a_dump_is_a_copy() -> None:
    quota = ledger_with(None)
    dump = quota.dump()
    taken(quota, 1)
    assert dump[FORENSICS].buckets == {}


def test_calls_booked_far_ahead_by_a_wrong_clock_do_not_close_a_pool_for_years() -> None:
    ahead = ledger_with(10)
    for _ in range(10):
        ahead.reserve(FORENSICS, NOW + 3650 * DAY)
    later = ledger_with(10, ahead.dump())
    later.reserve(FORENSICS, NOW + 2 * DAY)


def test_threads_together_take_exactly_the_limit() -> None:
    quota = ledger_with(500)
    refused: list[QuotaExceeded] = []

    def take_a_hundred() -> None:
        for _ in range(100):
            try:
                quota.reserve(FORENSICS, NOW)
            except QuotaExceeded as spent:
                refused.append(spent)

    threads = [threading.Thread(target=take_a_hundred) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (quota.made[FORENSICS], len(refused)) == (500, 300)


def test_what_is_left_is_told_where_a_limit_is_set_and_comes_back_when_its_bucket_does() -> None:
    quota = ledger_with(10)
    taken(quota, 3)
    assert quota.left(FORENSICS, NOW) == 7
    (bucket,) = counted_buckets(quota.dump()[FORENSICS].buckets, NOW)
    back = counts_until(bucket)
    assert quota.left(FORENSICS, back - timedelta(seconds=1)) == 7
    assert quota.left(FORENSICS, back) == 10
    assert ledger_with(None).left(FORENSICS, NOW) is None


def refused(quota: Quota, calls: int, hours: int) -> None:
    now = NOW + timedelta(hours=hours)
    for _ in range(calls):
        quota.reserve(FORENSICS, now)
        quota.count_429(FORENSICS, now)
    quota.block(FORENSICS, now)


def test_refused_calls_of_earlier_runs_count_neither_for_nor_against_a_learned_limit() -> None:
    quota = ledger_with(None)
    taken(quota, 3)
    refused(quota, 6, hours=0)
    for hours in (1, 3, 7, 15):
        quota = ledger_with(None, quota.dump())
        refused(quota, 1, hours)
    assert quota.dump()[FORENSICS].learned == 3
    back = NOW + DAY + timedelta(minutes=10)
    assert quota.left(FORENSICS, back) == 3
    for _ in range(3):
        quota.reserve(FORENSICS, back)
    quota.unblock(FORENSICS, back)
    assert quota.left(FORENSICS, back) == 0, "as many as before are no sign of a higher limit"


def test_one_failed_item_may_be_the_call_that_tests_a_limit() -> None:
    quota = ledger_with(None)
    refused(quota, 1, hours=0)
    assert quota.reserve_retries(FORENSICS, 5, NOW + timedelta(minutes=30)) == 0
    assert quota.reserve_retries(FORENSICS, 5, NOW + timedelta(hours=1)) == 1
