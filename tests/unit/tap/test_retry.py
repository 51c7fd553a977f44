from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tap_forensics.clock import Deadline
from tap_forensics.errors import RateLimited, RequestRejected, Unavailable
from tap_forensics.tap.retry import retry
from tests.support.clocks import MovableClock

Sleeps = list[tuple[Exception, float]]


@pytest.fixture
def sleeps() -> Sleeps:
    return []


@pytest.fixture
def ask(clock: MovableClock, sleeps: Sleeps) -> Callable[..., Any]:
    """Asks patiently for the first outcome that is no exception."""

    def patient(*outcomes: object, attempts: int = 3, within_seconds: float = 1000) -> object:
        left = iter(outcomes)

        def once() -> object:
            outcome = next(left)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return retry(
            once,
            attempts=attempts,
            deadline=Deadline.after(clock.as_clock, within_seconds),
            before_sleep=lambda error, seconds: sleeps.append((error, seconds)),
        )

    return patient


def test_an_answer_is_given_at_once(clock: MovableClock, ask: Callable[..., Any]) -> None:
    assert ask("answer") == "answer"
    assert clock.sleeps == []


def test_a_failure_is_told_and_asked_about_again(
    clock: MovableClock, ask: Callable[..., Any], sleeps: Sleeps
) -> None:
    first, second = Unavailable("one"), Unavailable("two")
    assert ask(first, second, "answer") == "answer"
    assert [error for error, _ in sleeps] == [first, second]
    assert [seconds for _, seconds in sleeps] == clock.sleeps


def test_the_last_failure_is_raised_without_another_wait(
    clock: MovableClock, ask: Callable[..., Any]
) -> None:
    with pytest.raises(Unavailable, match="three"):
        ask(Unavailable("one"), Unavailable("two"), Unavailable("three"), "too late")
    assert len(clock.sleeps) == 2


def test_other_failures_are_not_waited_for(clock: MovableClock, ask: Callable[..., Any]) -> None:
    for error in (RateLimited("429"), RequestRejected(400, "no")):
        with pytest.raises(type(error)):
            ask(error, "too late")
    assert clock.sleeps == []


def test_pauses_double_with_jitter_up_to_twenty_seconds(clock: MovableClock, ask: Callable[..., Any]) -> None:
    ask(*[Unavailable("x")] * 9, "answer", attempts=10)
    for pause, longest in zip(clock.sleeps, [1, 2, 4, 8, 16, 20, 20, 20, 20], strict=True):
        assert longest / 2 <= pause <= longest


def test_pauses_are_not_the_same_for_all(clock: MovableClock, ask: Callable[..., Any]) -> None:
    ask(*[Unavailable("x")] * 20, "answer", attempts=21)
    assert len(set(clock.sleeps)) > 10


@pytest.mark.parametrize("seconds", [0.5, 7, 300])
def test_the_apis_own_wish_comes_first(clock: MovableClock, ask: Callable[..., Any], seconds: float) -> None:
    ask(Unavailable("x", seconds), "answer")
    assert clock.sleeps == [seconds]


def test_a_wish_for_more_than_three_hundred_seconds_is_as_good_as_none(
    clock: MovableClock, ask: Callable[..., Any]
) -> None:
    ask(Unavailable("x", 301), "answer")
    assert clock.sleeps[0] <= 1


def test_a_wait_that_would_end_after_the_deadline_is_not_begun(
    clock: MovableClock, ask: Callable[..., Any]
) -> None:
    with pytest.raises(Unavailable):
        ask(Unavailable("x", 60), "too late", within_seconds=60)
    assert clock.sleeps == []


def test_a_wait_that_ends_before_the_deadline_is_begun(ask: Callable[..., Any]) -> None:
    assert ask(Unavailable("x", 59), "answer", within_seconds=60) == "answer"
