"""How often and how long one question is asked again."""

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
_LONGEST_PAUSE_SECONDS = 20.0
# Not the global generator: many threads draw from it at their own time.
_JITTER = random.SystemRandom()


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds from now, from RFC 9110's two forms; None for anything else, and for a time not ahead."""
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
    """Asks up to `attempts` times; raises the last error, also if waiting would end after the deadline.

    Pauses are jittered and double from 1 s to 20 s; the API's own `Retry-After` up to 300 s comes first.
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
            # Its frames hold the body, which must not wait with us.
            error.__traceback__ = error.__context__ = None
            before_sleep(error, pause)
            deadline.clock.sleep(pause)
    raise AssertionError("attempts is at least 1")


def _pause_seconds(attempt: int, retry_after_seconds: float | None) -> float:
    if retry_after_seconds is not None and retry_after_seconds <= LONGEST_RETRY_AFTER_SECONDS:
        return retry_after_seconds
    longest = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
    return _JITTER.uniform(longest / 2, longest)
