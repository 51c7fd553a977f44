from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tap_forensics.clock import Deadline, floor_to_second, iso, parse_iso, run_periodically
from tests.support.clocks import NOW, MovableClock


def test_a_whole_second_is_written_without_a_fraction() -> None:
    assert iso(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)) == "2026-03-04T05:06:07Z"


def test_a_fraction_is_written_in_milliseconds() -> None:
    assert iso(datetime(2026, 3, 4, 5, 6, 7, 120_999, tzinfo=UTC)) == "2026-03-04T05:06:07.120Z"


def test_another_zone_is_written_as_utc() -> None:
    moment = datetime(2026, 3, 4, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert iso(moment) == "2026-03-03T23:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-04T10:00:00Z",
        "2026-03-04T10:00:00+00:00",
        "2026-03-04T10:00:00",
        "2026-03-04T12:00:00+02:00",
        "2026-03-04T10:00:00.000000+00:00",
    ],
)
def test_every_usual_spelling_of_a_moment_is_read_as_utc(text: str) -> None:
    moment = parse_iso(text)
    assert (moment, moment.utcoffset()) == (NOW, timedelta(0))


@pytest.mark.parametrize(
    "text", ["", "now", "2026-13-01T00:00:00Z", "1772618400", "2026-03-04T10:00:00Zjunk"]
)
def test_what_is_no_moment_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|month"):
        parse_iso(text)


def test_a_whole_second_loses_only_its_fraction() -> None:
    assert floor_to_second(NOW + timedelta(microseconds=999_999)) == NOW


def test_a_deadline_passes_at_its_moment_and_not_before(clock: MovableClock) -> None:
    deadline = Deadline.after(clock.as_clock, 10)
    clock.advance(9.5)
    assert (deadline.passed(), deadline.remaining_seconds()) == (False, 0.5)
    clock.advance(0.5)
    assert deadline.passed()


def test_an_action_is_called_again_and_again_until_it_is_stopped() -> None:
    three = threading.Semaphore(0)
    stop = run_periodically(0.001, three.release)
    assert all(three.acquire(timeout=10) for _ in range(3))
    stop()
