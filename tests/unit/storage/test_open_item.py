"""When an open item is asked for."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.storage.state import Gap, Threat
from tests.support.clocks import NOW

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def threat(priority: int, first_seen: Any = NOW, **fields: Any) -> Threat:
    return Threat(priority=priority, first_seen=first_seen, **fields)


def gap(hours_ago: int, **fields: Any) -> Gap:
    start = NOW - hours_ago * HOUR
    return Gap(start=start, end=start + HOUR, planned_at=NOW, **fields)


def test_threats_are_asked_suspects_first_then_untried_ones_by_priority_then_failed_ones() -> None:
    expected = [
        threat(2, kills=1),
        threat(0, attempts=3, kills=1),
        threat(0, NOW - HOUR),
        threat(0),
        threat(1, NOW - HOUR),
        threat(2, NOW - 9 * HOUR),
        threat(1, NOW - 9 * HOUR, attempts=1),
        threat(2, attempts=1),
        threat(0, NOW - HOUR, attempts=5),
    ]
    shuffled = random.Random(1).sample(expected, len(expected))
    assert sorted(shuffled, key=Threat.sort_key) == expected


def test_windows_are_asked_suspects_first_then_untried_ones_by_age_then_failed_ones() -> None:
    expected = [gap(2, kills=1), gap(5), gap(3), gap(9, attempts=1), gap(8, attempts=1), gap(99, attempts=2)]
    shuffled = random.Random(1).sample(expected, len(expected))
    assert sorted(shuffled, key=Gap.sort_key) == expected


def test_what_was_never_tried_is_due() -> None:
    assert threat(1).due(NOW)
    assert gap(1).due(NOW)


@pytest.mark.parametrize(
    ("attempts", "hours"),
    [(1, 0), (2, 0), (3, 1), (4, 2), (5, 4), (6, 8), (7, 16), (8, 24), (9, 24), (500, 24)],
)
def test_a_failed_item_is_due_in_the_next_run_and_from_the_third_on_later_and_later(
    attempts: int, hours: int
) -> None:
    item = threat(1, attempts=attempts - 1)
    item.failed(NOW)
    assert (item.attempts, item.last_attempt_at) == (attempts, NOW)
    assert item.due(NOW) == (hours == 0)
    # An hourly schedule is not exact.
    assert item.due(NOW + hours * HOUR - timedelta(minutes=5))
    assert item.due(NOW + hours * HOUR - timedelta(minutes=5, seconds=1)) == (hours == 0)


def test_an_attempt_in_the_future_was_one_of_a_clock_that_was_set_back() -> None:
    assert threat(1, attempts=9, last_attempt_at=NOW + SECOND).due(NOW)


def test_what_killed_a_run_is_asked_again_at_once_and_after_the_second_one_a_day_later() -> None:
    item = gap(1)
    assert not item.killed_a_run(NOW)
    assert item.due(NOW)
    assert item.killed_a_run(NOW + HOUR)
    assert not item.due(NOW + 25 * HOUR - SECOND)
    assert item.due(NOW + 25 * HOUR)
    assert item.killed_a_run(NOW + 25 * HOUR)
    assert (item.kills, item.due(NOW + 48 * HOUR)) == (3, False)


def test_a_run_that_outlives_its_failure_clears_the_suspicion() -> None:
    item = threat(1, kills=2, attempts=1)
    item.failed(NOW)
    assert (item.kills, item.attempts, item.due(NOW), item.untried()) == (0, 2, True, False)


def test_only_what_neither_failed_nor_killed_a_run_is_untried() -> None:
    assert threat(1).untried()
    assert not threat(1, attempts=1).untried()
    assert not threat(1, kills=1).untried()
