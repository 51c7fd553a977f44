"""Retries of one request: how many, and after which pauses."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tap_forensics.clock import Deadline
from tap_forensics.errors import TooLarge, Unavailable
from tap_forensics.tap.rate_limit import LONGEST_RETRY_AFTER_SECONDS

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 20.0
# Not the global generator: draws from many threads would disturb code that seeds it.
_JITTER = random.SystemRandom()


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds from now, from the two forms of RFC 9110; None for any other text, and for zero or the past."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text) or None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    seconds = (moment - now).total_seconds()
    return seconds if seconds > 0 else None


def retry(
    ask: Callable[[], T],
    *,
    attempts: int,
    deadline: Deadline,
    before_sleep: Callable[[Exception, float], None],
    may_retry: Callable[[], bool] = lambda: True,
) -> T:
    """Calls `ask` up to `attempts` times. Raises the last error, also if the pause would pass the deadline.

    Pauses double from 1 s to 20 s, with jitter. A `Retry-After` up to 300 s is used instead.
    """
    for attempt in range(attempts):
        try:
            return ask()
        except Unavailable as error:
            pause = _pause_seconds(attempt, error.retry_after_seconds)
            if (
                attempt == attempts - 1
                or pause >= deadline.remaining_seconds()
                or isinstance(error, TooLarge)
                or not may_retry()
            ):
                raise
            # The traceback keeps the body alive; clear it before sleeping.
            error.__traceback__ = error.__context__ = None
            before_sleep(error, pause)
            deadline.clock.sleep(pause)
    raise AssertionError("attempts is at least 1")


def _pause_seconds(attempt: int, retry_after_seconds: float | None) -> float:
    if retry_after_seconds is not None and retry_after_seconds <= LONGEST_RETRY_AFTER_SECONDS:
        return retry_after_seconds
    longest = min(_FIRST_PAUSE_SECONDS * 2**attempt, _MAX_PAUSE_SECONDS)
    return _JITTER.uniform(longest / 2, longest)
