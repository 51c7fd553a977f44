from __future__ import annotations

import threading

import pytest

from tap_forensics.clock import Deadline
from tap_forensics.errors import DeadlineExceeded, RateLimited
from tap_forensics.tap.rate_limit import RateLimiter
from tests.support.fakes import FakeTime


def gate_for(time: FakeTime, seconds: float = 1000, *, probe_only: bool = False) -> RateLimiter:
    return RateLimiter(time.clock, Deadline.after(time.clock, seconds), probe_only=probe_only)


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


def test_an_open_gate_lets_all_through_at_once(time: FakeTime) -> None:
    limiter = gate_for(time)
    assert {limiter.acquire() for _ in range(8)} == {0}
    assert time.sleeps == []


def test_after_a_429_the_next_call_waits_as_long_as_it_was_told(time: FakeTime) -> None:
    limiter = gate_for(time)
    assert limiter.rate_limited(limiter.acquire(), 7.0) == 7.0
    limiter.acquire()
    assert 7.0 <= time.monotonic() < 7.5


def test_without_a_usable_time_waits_double_from_one_second_and_end_after_thirty(time: FakeTime) -> None:
    waits, end = limited_until_it_ends(gate_for(time))
    assert waits == [1, 2, 4, 8, 16]
    assert end.lasting
    assert 30 <= time.monotonic() < 33


def test_once_ended_the_gate_stays_shut_for_all(time: FakeTime) -> None:
    limiter = gate_for(time)
    limited_until_it_ends(limiter)
    time.advance(500)
    with pytest.raises(RateLimited) as caught:
        limiter.acquire()
    assert caught.value.lasting


def test_told_times_count_into_the_thirty_seconds_of_nothing_but_429(time: FakeTime) -> None:
    waits, end = limited_until_it_ends(gate_for(time), retry_after_seconds=10)
    assert (waits, end.lasting) == ([10, 10, 10], True)


def test_an_answer_between_starts_the_thirty_seconds_anew(time: FakeTime) -> None:
    limiter = gate_for(time)
    for _ in range(10):
        limiter.rate_limited(limiter.acquire(), 20.0)
        limiter.succeeded(limiter.acquire())
    assert time.monotonic() >= 200


def test_an_answer_between_starts_the_doubling_anew(time: FakeTime) -> None:
    limiter = gate_for(time)
    assert [limiter.rate_limited(limiter.acquire(), None) for _ in range(3)] == [1, 2, 4]
    limiter.succeeded(limiter.acquire())
    assert limiter.rate_limited(limiter.acquire(), None) == 1


def test_a_retry_after_of_three_hundred_seconds_is_obeyed(time: FakeTime) -> None:
    limiter = gate_for(time)
    assert limiter.rate_limited(limiter.acquire(), 300) == 300


def test_a_longer_retry_after_is_as_good_as_none(time: FakeTime) -> None:
    limiter = gate_for(time)
    assert limiter.rate_limited(limiter.acquire(), 300.5) == 1


def test_a_retry_after_beyond_the_deadline_ends_the_run_but_is_not_remembered_as_a_limit(
    time: FakeTime,
) -> None:
    limiter = gate_for(time, seconds=100)
    with pytest.raises(RateLimited) as caught:
        limiter.rate_limited(limiter.acquire(), 200)
    assert not caught.value.lasting
    assert time.sleeps == []
    with pytest.raises(RateLimited):
        limiter.acquire()


def test_a_retry_after_just_inside_the_deadline_is_waited_for(time: FakeTime) -> None:
    limiter = gate_for(time, seconds=100)
    limiter.rate_limited(limiter.acquire(), 99)
    limiter.acquire()
    assert time.monotonic() >= 99


def test_at_the_deadline_no_call_begins(time: FakeTime) -> None:
    limiter = gate_for(time, seconds=5)
    time.advance(5)
    with pytest.raises(DeadlineExceeded):
        limiter.acquire()


def test_who_waits_for_a_try_that_never_ends_is_let_go_at_the_deadline(time: FakeTime) -> None:
    limiter = gate_for(time, seconds=50)
    limiter.rate_limited(limiter.acquire(), None)
    limiter.acquire()
    with pytest.raises(DeadlineExceeded):
        limiter.acquire()
    assert 50 <= time.monotonic() < 50.5


def test_while_one_call_tries_the_others_wait_until_it_passed(time: FakeTime) -> None:
    limiter = gate_for(time)
    limiter.rate_limited(limiter.acquire(), None)
    first_try = limiter.acquire()

    def pass_after_a_minute() -> None:
        if time.monotonic() >= 60:
            limiter.succeeded(first_try)

    time.on_sleep = pass_after_a_minute
    limiter.acquire()
    assert time.monotonic() >= 60
    time.on_sleep = lambda: None
    before = time.monotonic()
    limiter.acquire()
    assert time.monotonic() == before


def test_a_try_without_an_answer_makes_room_for_the_next(time: FakeTime) -> None:
    limiter = gate_for(time)
    limiter.rate_limited(limiter.acquire(), None)
    limiter.aborted(limiter.acquire())
    before = time.monotonic()
    limiter.acquire()
    assert time.monotonic() == before


def test_the_late_429s_of_calls_made_before_count_as_one(time: FakeTime) -> None:
    limiter = gate_for(time)
    tickets = [limiter.acquire() for _ in range(8)]
    assert [limiter.rate_limited(epoch, None) for epoch in tickets] == [1] + [None] * 7
    assert limiter.rate_limited(limiter.acquire(), None) == 2


def test_a_late_answer_of_a_call_made_before_does_not_open_the_gate(time: FakeTime) -> None:
    limiter = gate_for(time)
    slow, quick = limiter.acquire(), limiter.acquire()
    limiter.rate_limited(quick, 10)
    limiter.succeeded(slow)
    limiter.acquire()
    assert time.monotonic() >= 10


def test_a_call_made_before_that_ends_without_an_answer_is_not_taken_for_the_try(time: FakeTime) -> None:
    limiter = gate_for(time, seconds=20)
    slow, quick = limiter.acquire(), limiter.acquire()
    limiter.rate_limited(quick, 1)
    limiter.acquire()
    limiter.aborted(slow)
    with pytest.raises(DeadlineExceeded):
        limiter.acquire()


def test_whether_anything_passed_is_remembered(time: FakeTime) -> None:
    limiter = gate_for(time)
    slow = limiter.acquire()
    limiter.rate_limited(limiter.acquire(), None)
    assert not limiter.ever_succeeded
    limiter.succeeded(slow)
    assert limiter.ever_succeeded


def test_with_one_call_the_others_wait_until_it_passed(time: FakeTime) -> None:
    limiter = gate_for(time, seconds=60, probe_only=True)
    epoch = limiter.acquire()
    assert time.sleeps == []
    with pytest.raises(DeadlineExceeded):
        limiter.acquire()
    limiter.succeeded(epoch)


def test_with_one_call_its_429_is_the_end(time: FakeTime) -> None:
    limiter = gate_for(time, probe_only=True)
    with pytest.raises(RateLimited) as caught:
        limiter.rate_limited(limiter.acquire(), 5)
    assert caught.value.lasting
    with pytest.raises(RateLimited):
        limiter.acquire()


def test_with_one_call_an_answer_opens_the_gate_for_all(time: FakeTime) -> None:
    limiter = gate_for(time, probe_only=True)
    limiter.succeeded(limiter.acquire())
    limiter.acquire()
    limiter.acquire()
    assert time.sleeps == []


class LimitedApi:
    """Answers 429 until a moment; tells how many calls that began behind a shut gate were in it together."""

    def __init__(self, time: FakeTime, until_seconds: float) -> None:
        self._time, self._until_seconds = time, until_seconds
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


def test_eight_threads_wait_together_and_try_one_at_a_time(time: FakeTime) -> None:
    limiter, api = gate_for(time), LimitedApi(time, until_seconds=10)
    threads = [threading.Thread(target=work, args=(limiter, api, 5), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (api.answered, api.most_tries_at_once) == (40, 1)
