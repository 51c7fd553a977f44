from __future__ import annotations

import threading

import pytest

from tap_forensics.clock import Deadline
from tap_forensics.errors import DeadlineExceeded, RateLimited
from tap_forensics.tap.rate_limit import RateLimiter
from tests.support.clocks import MovableClock


def gate_for(clock: MovableClock, seconds: float = 1000, *, probe: bool = False) -> RateLimiter:
    limiter = RateLimiter(clock.as_clock, Deadline.after(clock.as_clock, seconds))
    if probe:
        limiter.limit_is_known(probe=True)
    return limiter


def limited_until_it_ends(
    limiter: RateLimiter, retry_after_seconds: float | None = None
) -> tuple[list[float | None], RateLimited]:
    """Meets nothing but 429: the waits, and what ended them."""
    waits: list[float | None] = []
    while True:
        try:
            waits.append(limiter.rate_limited(limiter.acquire(), retry_after_seconds))
        except RateLimited as end:
            return waits, end


def test_an_open_gate_lets_all_through_at_once(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    assert {limiter.acquire() for _ in range(8)} == {0}
    assert clock.sleeps == []


def test_after_a_429_the_next_call_waits_as_long_as_it_was_told(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    assert limiter.rate_limited(limiter.acquire(), 7.0) == 7.0
    limiter.acquire()
    assert 7.0 <= clock.monotonic() < 7.5


def test_without_a_usable_time_waits_double_from_one_second_and_end_after_thirty(clock: MovableClock) -> None:
    waits, end = limited_until_it_ends(gate_for(clock))
    assert waits == [1, 2, 4, 8, 16]
    assert end.lasting
    assert 30 <= clock.monotonic() < 33


def test_once_ended_the_gate_stays_shut_for_all(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    limited_until_it_ends(limiter)
    clock.advance(500)
    with pytest.raises(RateLimited) as caught:
        limiter.acquire()
    assert caught.value.lasting


def test_told_times_count_into_the_thirty_seconds_of_nothing_but_429(clock: MovableClock) -> None:
    waits, end = limited_until_it_ends(gate_for(clock), retry_after_seconds=10)
    assert (waits, end.lasting) == ([10, 10, 10], True)


def test_an_answer_between_starts_the_thirty_seconds_anew(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    for _ in range(10):
        limiter.rate_limited(limiter.acquire(), 20.0)
        limiter.succeeded(limiter.acquire())
    assert clock.monotonic() >= 200


def test_an_answer_between_starts_the_doubling_anew(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    assert [limiter.rate_limited(limiter.acquire(), None) for _ in range(3)] == [1, 2, 4]
    limiter.succeeded(limiter.acquire())
    assert limiter.rate_limited(limiter.acquire(), None) == 1


def test_a_retry_after_of_three_hundred_seconds_is_obeyed(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    assert limiter.rate_limited(limiter.acquire(), 300) == 300


def test_a_longer_retry_after_is_as_good_as_none(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    assert limiter.rate_limited(limiter.acquire(), 300.5) == 1


def test_a_retry_after_beyond_the_deadline_ends_the_run_but_is_not_remembered_as_a_limit(
    clock: MovableClock,
) -> None:
    limiter = gate_for(clock, seconds=100)
    with pytest.raises(RateLimited) as caught:
        limiter.rate_limited(limiter.acquire(), 200)
    assert not caught.value.lasting
    assert clock.sleeps == []
    with pytest.raises(RateLimited):
        limiter.acquire()


def test_a_retry_after_just_inside_the_deadline_is_waited_for(clock: MovableClock) -> None:
    limiter = gate_for(clock, seconds=100)
    limiter.rate_limited(limiter.acquire(), 99)
    limiter.acquire()
    assert clock.monotonic() >= 99


def test_at_the_deadline_no_call_begins(clock: MovableClock) -> None:
    limiter = gate_for(clock, seconds=5)
    clock.advance(5)
    with pytest.raises(DeadlineExceeded):
        limiter.acquire()


def test_who_waits_for_a_try_that_never_ends_is_let_go_at_the_deadline(clock: MovableClock) -> None:
    limiter = gate_for(clock, seconds=50)
    limiter.rate_limited(limiter.acquire(), None)
    limiter.acquire()
    with pytest.raises(DeadlineExceeded):
        limiter.acquire()
    assert 50 <= clock.monotonic() < 50.5


def test_while_one_call_tries_the_others_wait_until_it_passed(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    limiter.rate_limited(limiter.acquire(), None)
    first_try = limiter.acquire()

    def pass_after_a_minute() -> None:
        if clock.monotonic() >= 60:
            limiter.succeeded(first_try)

    clock.on_sleep = pass_after_a_minute
    limiter.acquire()
    assert clock.monotonic() >= 60
    clock.on_sleep = lambda: None
    before = clock.monotonic()
    limiter.acquire()
    assert clock.monotonic() == before


def test_a_try_without_an_answer_makes_room_for_the_next(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    limiter.rate_limited(limiter.acquire(), None)
    limiter.aborted(limiter.acquire())
    before = clock.monotonic()
    limiter.acquire()
    assert clock.monotonic() == before


def test_the_late_429s_of_calls_made_before_count_as_one(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    tickets = [limiter.acquire() for _ in range(8)]
    assert [limiter.rate_limited(epoch, None) for epoch in tickets] == [1] + [None] * 7
    assert limiter.rate_limited(limiter.acquire(), None) == 2


def test_a_late_answer_of_a_call_made_before_does_not_open_the_gate(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    slow, quick = limiter.acquire(), limiter.acquire()
    limiter.rate_limited(quick, 10)
    limiter.succeeded(slow)
    limiter.acquire()
    assert clock.monotonic() >= 10


def test_a_call_made_before_that_ends_without_an_answer_is_not_taken_for_the_try(clock: MovableClock) -> None:
    limiter = gate_for(clock, seconds=20)
    slow, quick = limiter.acquire(), limiter.acquire()
    limiter.rate_limited(quick, 1)
    limiter.acquire()
    limiter.aborted(slow)
    with pytest.raises(DeadlineExceeded):
        limiter.acquire()


def test_whether_anything_passed_is_remembered(clock: MovableClock) -> None:
    limiter = gate_for(clock)
    slow = limiter.acquire()
    limiter.rate_limited(limiter.acquire(), None)
    assert not limiter.ever_succeeded
    limiter.succeeded(slow)
    assert limiter.ever_succeeded


def test_with_one_call_the_others_wait_until_it_passed(clock: MovableClock) -> None:
    limiter = gate_for(clock, seconds=60, probe=True)
    epoch = limiter.acquire()
    assert clock.sleeps == []
    with pytest.raises(DeadlineExceeded):
        limiter.acquire()
    limiter.succeeded(epoch)


def test_with_one_call_its_429_is_the_end(clock: MovableClock) -> None:
    limiter = gate_for(clock, probe=True)
    with pytest.raises(RateLimited) as caught:
        limiter.rate_limited(limiter.acquire(), 5)
    assert caught.value.lasting
    with pytest.raises(RateLimited):
        limiter.acquire()


def test_with_one_call_an_answer_opens_the_gate_for_all(clock: MovableClock) -> None:
    limiter = gate_for(clock, probe=True)
    limiter.succeeded(limiter.acquire())
    limiter.acquire()
    limiter.acquire()
    assert clock.sleeps == []


class LimitedApi:
    """Answers 429 until a moment; tells how many calls that began behind a shut gate were in it together."""

    def __init__(self, clock: MovableClock, until_seconds: float) -> None:
        self._time, self._until_seconds = clock, until_seconds
        self._lock = threading.Lock()
        self._at_once = 0
        self.most_tries_at_once = 0
        self.answered = 0

    def call(self, *, is_try: bool) -> bool:
        with self._lock:
            self._at_once += is_try
            self.most_tries_at_once = max(self.most_tries_at_once, self._at_once)
        self._time.sleep(0.01)
        with self._lock:
            self._at_once -= is_try
            good = self._time.monotonic() >= self._until_seconds
            self.answered += good
        return good


def work(limiter: RateLimiter, api: LimitedApi, calls: int) -> None:
    while calls:
        epoch = limiter.acquire()
        if api.call(is_try=epoch > 0 and not limiter.ever_succeeded):
            limiter.succeeded(epoch)
            calls -= 1
        else:
            limiter.rate_limited(epoch, None)


def test_eight_threads_wait_together_and_try_one_at_a_time(clock: MovableClock) -> None:
    limiter, api = gate_for(clock), LimitedApi(clock, until_seconds=10)
    threads = [threading.Thread(target=work, args=(limiter, api, 5), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (api.answered, api.most_tries_at_once) == (40, 1)
