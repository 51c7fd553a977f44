"""What a body weighs is at least what it takes to decode it; the budget is kept whoever comes when."""

from __future__ import annotations

import json
import random
import threading
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_forensics.discovery.siem import _lists_of, _reading
from tap_forensics.forensics.responses import _decode
from tap_forensics.memory_budget import (
    EVENT,
    WORST_PER_BYTE,
    MemoryBudget,
    is_heavy_event,
    reserve_events,
    reserve_reports,
)
from tap_forensics.records.event_lines import read_record
from tap_forensics.records.ndjson import sanitize_utf8

NOW = datetime(2026, 3, 4, tzinfo=UTC)
# What decoders keep for themselves, whatever they read.
OVERHEAD_BYTES = 64 * 1024
LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [0, 300, 10**15, 0.5, 1e300, "", "ab", "é" * 3, "x" * 40, True, None, [], {}]
)
KEYS = st.sampled_from(["", "a", "é", "forensics", "threatID", "threatsInfoMap", "x" * 40])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def weight(reserve: Callable[[MemoryBudget, bytes], object], body: bytes) -> int:
    budget = MemoryBudget(10**12, lambda: None)
    scarce = 10**12 // 2
    budget.reserve(scarce)
    reserve(budget, body)
    return budget.reserved - scarce


def grown(decode: Callable[[], Any]) -> int:
    """The most memory that this took at a time."""
    tracemalloc.start()
    try:
        kept = decode()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        del kept


def distinct(number: int) -> bytes:
    return b"{%s}" % b",".join(b'"%x":0' % key for key in range(number))


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=5), st.integers(1, 3000), st.integers(0, 20_000))
def test_a_forensics_answer_weighs_what_it_takes(reports: list[Any], times: int, keys: int) -> None:
    items = compact(reports)[1:-1]
    body = b'{"generated":"x","reports":[%s,%s]}' % (b",".join([items] * times), distinct(keys))
    grew = grown(lambda: _decode(sanitize_utf8(body)))
    assert grew <= weight(reserve_reports, body) + OVERHEAD_BYTES
    assert grew <= WORST_PER_BYTE * len(body) + OVERHEAD_BYTES


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(OBJECTS | VALUES, min_size=1, max_size=5), st.integers(1, 1000))
def test_a_siem_answer_weighs_what_it_takes(records: list[Any], times: int) -> None:
    items = b",".join([compact(records)[1:-1]] * times)
    body = b'{"messagesBlocked":[%s],"clicksBlocked":[%s]}' % (items, items)
    grew = grown(lambda: _reading(_lists_of(body), NOW, threats=True, events=True))
    assert grew <= weight(reserve_events, body) + OVERHEAD_BYTES + EVENT.weigh(compact(records)) * 2


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=5), st.integers(1, 300_000))
def test_no_event_takes_more_than_a_function_has_to_spare(values: list[Any], times: int) -> None:
    items = compact(values)[1:-1]
    event = b'{"a":[%s]}' % b",".join([items] * min(times, 4_000_000 // len(items) + 1))
    grew = grown(lambda: read_record(event))
    assert grew < 40 * 2**20
    assert not is_heavy_event(event) or grew < len(event) * 2 + OVERHEAD_BYTES


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=2, max_size=8),
    st.randoms(use_true_random=False),
)
def test_the_budget_is_never_over_committed_and_everyone_gets_a_turn(
    weights: list[list[int]], rng: random.Random
) -> None:
    budget = MemoryBudget(12, lambda: None)
    lock, store, most = threading.Lock(), 0, [0]

    def work(mine: list[int], twice: bool) -> None:
        nonlocal store
        for weight in mine:
            release = budget.reserve(weight)
            with lock:
                store += weight
                most.append(store)
            with lock:
                store -= weight
            release()
            if twice:
                release()

    threads = [
        threading.Thread(target=work, args=(mine, rng.random() < 0.5), daemon=True) for mine in weights
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert max(most) <= 12
    assert store == 0
