from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tap_forensics.errors import StateUnreadable
from tap_forensics.storage.event_dedup import EventIndex, Novelty, decode, encode, last_minute, observe, prune
from tap_forensics.tap.windows import Window

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def minute(hours_ago: float) -> int:
    return last_minute(Window(NOW, NOW - hours_ago * HOUR))


def holding(**hours_ago: float) -> EventIndex:
    seen = EventIndex()
    for number, ago in enumerate(hours_ago.values()):
        observe(seen, number, 1, minute(ago))
    return seen


def test_what_is_kept_comes_back() -> None:
    seen = EventIndex("20260304_100000", 3, {2**64 - 1: 2**63, 0: 0, 7: 8})
    assert decode(encode(seen), "it") == seen


def test_the_object_is_one_line_and_sixteen_bytes_an_event() -> None:
    head, _, rest = encode(EventIndex("r", 1, {1: 2, 3: 4})).partition(b"\n")
    assert head == b'{"tap_seen":1,"run_id":"r","batches":1,"count":2}'
    assert rest == b"".join(n.to_bytes(8, "little") for n in (1, 3, 2, 4))


@pytest.mark.parametrize("cut", [1, 8, 40])
def test_a_cut_object_is_refused_by_name_with_the_remedy(cut: int) -> None:
    with pytest.raises(StateUnreadable, match=r"gs://b/it .*earlier version of the object, or delete it"):
        decode(encode(EventIndex("r", 1, {1: 2, 3: 4}))[:-cut], "gs://b/it")


def test_an_event_is_new_once_and_each_change_of_version_an_update_back_too() -> None:
    seen = EventIndex()
    news = [observe(seen, 5, version, minute(0)) for version in (1, 1, 2, 2, 1, 1, 2)]
    assert news == [Novelty.NEW, None, Novelty.UPDATE, None, Novelty.UPDATE, None, Novelty.UPDATE]
    assert len(seen.entries) == 1


def test_a_later_version_that_0_1_0_delivered_is_no_update() -> None:
    first = minute(0)
    # 0.1.0 kept an event's first version, and each later one under a key of its own.
    seen = EventIndex(entries={5: 1 << 32 | first, 5 ^ (2 * 0x9E3779B97F4A7C15 % 2**64): 2 << 32 | first})
    assert observe(seen, 5, 2, first) is None
    assert seen.entries == {5: 2 << 32 | first}
    assert observe(seen, 5, 1, first) is Novelty.UPDATE


def test_an_event_is_remembered_by_its_latest_window() -> None:
    seen = EventIndex()
    for hours in (5, 1, 3):
        observe(seen, 5, 1, minute(hours))
    assert seen.entries == {5: 1 << 32 | minute(1)}


def test_what_later_reads_may_show_again_is_kept_and_the_rest_while_there_is_room() -> None:
    seen = holding(now=0, overlapping=1.9, expired=2.1, old=100, too_old=170)
    assert prune(seen, NOW, HOUR, []) == 0
    assert set(seen.entries) == {0, 1, 2, 3}
    assert prune(seen, NOW, HOUR, [], kept_for_updates=2) == 0
    assert set(seen.entries) == {0, 1}


def test_what_lies_in_an_open_gap_is_kept() -> None:
    seen = holding(now=0, in_gap=30, beside=40)
    prune(seen, NOW, HOUR, [Window(NOW - 30.5 * HOUR, NOW - 29.5 * HOUR)], kept_for_updates=0)
    assert set(seen.entries) == {0, 1}


def test_more_than_memory_holds_is_forgotten_oldest_first_and_counted() -> None:
    seen = holding(a=0.1, b=0.2, c=0.3, d=0.4)
    assert prune(seen, NOW, HOUR, [], max_entries=2) == 2
    assert set(seen.entries) == {0, 1}
    seen = holding(a=0.1, b=0.2, c=0.3)
    assert prune(seen, None, HOUR, [], max_entries=2) == 1
