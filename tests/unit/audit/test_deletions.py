"""Traces of objects that a feed or a lifecycle rule has deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.cli.audit_bucket import FeedReading, deleting_rule
from tap_forensics.cli.objects import Feed
from tests.support.clocks import NOW

DAYS = timedelta(days=1)


def reading(**numbers: set[int]) -> FeedReading:
    made = FeedReading(Feed("tap-forensics", "tap_forensics"), NOW, of_events=False)
    made.numbers.update(numbers)
    return made


@pytest.mark.parametrize(
    ("numbers", "sign"),
    [
        ({}, ""),
        ({"a": {1}, "b": {1, 2, 3}}, ""),
        ({"a": {1}, "b": {2}}, "objects of run b are missing"),
        ({"b": {1, 3}, "a": {1, 2, 4}}, "objects of run a are missing"),
    ],
)
def test_the_objects_of_a_run_have_consecutive_numbers(numbers: dict[str, set[int]], sign: str) -> None:
    assert reading(**numbers).sign_of_deletion() == sign


def test_what_vanishes_meanwhile_is_a_sign() -> None:
    vanished = reading()
    vanished.vanished = 1
    assert vanished.sign_of_deletion() == "1 object vanished during the audit"


@pytest.mark.parametrize(
    ("rule", "is_sign"),
    [
        ({"action": {"type": "Delete"}, "condition": {"age": 3}}, True),
        ({"action": {"type": "Delete"}, "condition": {"age": 3, "matchesPrefix": ["tap-f", "x"]}}, True),
        ({"action": {"type": "Delete"}, "condition": {"age": 3, "matchesPrefix": ["x/"]}}, False),
        ({"action": {"type": "Delete"}, "condition": {"age": 4}}, False),
        ({"action": {"type": "SetStorageClass"}, "condition": {"age": 1}}, False),
        ({"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": 1}}, False),
        ({}, False),
    ],
)
def test_only_a_rule_that_deletes_in_the_time_in_question_is_a_sign(
    rule: dict[str, Any], is_sign: bool
) -> None:
    sign = deleting_rule([rule], "tap-forensics/", 4 * DAYS)
    assert sign == ("a lifecycle rule deletes objects after 3 days" if is_sign else "")
