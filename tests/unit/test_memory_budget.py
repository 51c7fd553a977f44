from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tap_forensics.errors import DeadlineExceeded, TooLarge, Unavailable
from tap_forensics.memory_budget import (
    BUDGET_BYTES,
    MemoryBudget,
    reserve_reports,
)

EVIDENCE = b'{"type":"url","display":"http://example.com/a","what":{"url":"http://example.com/a"},"time":0},'


def never_over() -> None:
    return


def before_sleep(budget: MemoryBudget, weight: int, done: list[int]) -> threading.Thread:
    def wait() -> None:
        budget.reserve(weight)
        done.append(weight)

    thread = threading.Thread(target=wait, daemon=True)
    queued = len(budget._waiting) + 1
    thread.start()
    while len(budget._waiting) < queued:
        assert thread.is_alive()
    return thread


def test_what_is_heavier_than_the_whole_budget_is_refused_at_once() -> None:
    budget = MemoryBudget(10, never_over)
    with pytest.raises(TooLarge) as refused:
        budget.reserve(11)
    assert isinstance(refused.value, Unavailable)
    assert refused.value.heavy
    budget.reserve(10)


def test_a_light_one_does_not_overtake_a_heavy_one_that_waits() -> None:
    budget, reserved = MemoryBudget(10, never_over), list[int]()
    release = budget.reserve(6)
    heavy = before_sleep(budget, 10, reserved)
    light = before_sleep(budget, 1, reserved)
    assert reserved == []
    release()
    heavy.join(10)
    assert reserved == [10]
    assert light.is_alive()


def test_who_gives_up_waiting_leaves_the_way_free_for_the_others() -> None:
    def raise_if_over() -> None:
        if threading.current_thread() is threading.main_thread():
            raise DeadlineExceeded("over")

    budget, reserved = MemoryBudget(10, raise_if_over), list[int]()
    budget.reserve(6)
    with pytest.raises(DeadlineExceeded):
        budget.reserve(10)
    budget.reserve(4)
    assert reserved == []


def test_what_is_not_counted_gets_no_memory_that_the_others_need() -> None:
    budget, reserved = MemoryBudget(10, never_over), list[int]()
    budget.reserve(2)
    release = budget.reserve_if_free(3)
    assert release
    assert budget.reserve_if_free(1) is None
    release()
    before_sleep(budget, 9, reserved)
    assert budget.reserve_if_free(1) is None
    assert budget.reserved == 2


def test_memory_given_back_twice_counts_once() -> None:
    budget, reserved = MemoryBudget(10, never_over), list[int]()
    release: Callable[[], None] = budget.reserve(6)
    budget.reserve(4)
    release()
    release()
    budget.reserve(6)
    thread = before_sleep(budget, 1, reserved)
    thread.join(0.3)
    assert reserved == []


def weight(body: bytes) -> int:
    budget = MemoryBudget(10**12, never_over)
    scarce = 10**12 // 2
    budget.reserve(scarce)
    reserve_reports(budget, body)
    return budget.reserved - scarce


def report(evidence: bytes) -> bytes:
    return b'{"reports":[{"scope":"THREAT","id":"x","forensics":[%s{}]}]}' % evidence


def test_a_report_of_25_mib_of_evidence_as_tap_writes_it_fits() -> None:
    assert weight(report(EVIDENCE * (25 * 2**20 // len(EVIDENCE)))) < BUDGET_BYTES


def test_looking_where_the_evidence_lies_waits_for_memory_too() -> None:
    budget = MemoryBudget(BUDGET_BYTES, never_over)
    with pytest.raises(TooLarge):
        reserve_reports(budget, b'{"reports":[' + b"{}," * 1_600_000 + b"{}]}")
    assert budget.reserved == 0


@pytest.mark.parametrize("size_bytes", [40_000, 400_000])
def test_ordinary_reports_fit_for_eight_workers_and_as_many_outcomes_that_wait(size_bytes: int) -> None:
    assert 17 * weight(report(EVIDENCE * (size_bytes // len(EVIDENCE)))) < BUDGET_BYTES


@pytest.mark.slow
@pytest.mark.parametrize(
    "least",
    [b"{},", b'{"a":0},', b'{"forensics":[]},', b"0,"],
    ids=["empty", "a field", "evidence", "number"],
)
def test_millions_of_values_do_not(least: bytes) -> None:
    assert weight(b'{"reports":[' + least * 3_900_000 + b"{}]}") > BUDGET_BYTES
