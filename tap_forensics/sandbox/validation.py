"""The window rules of the SIEM API, with its own error messages.

Integrators captured three of the messages on live tenants. For a window that is too long they only described
the rejection (of half an hour over the limit), so the text of TOO_LONG is this stand-in's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

SHORTEST = timedelta(seconds=30)
LONGEST = timedelta(hours=1)
REACH = timedelta(days=7)

TOO_SHORT = "The requested interval is too short. Requests must be for at least 30.00s of data"
TOO_FAR = (
    "The requested start time is too far into the past. Requests for information up to 7.00d are accepted"
)
STILL_CURRENT = "The requested interval is still current."
TOO_LONG = "The requested interval is too long. Requests must be for at most 1.00h of data"

WINDOW_FORMS = ("interval", "sinceSeconds", "sinceTime")
Window = tuple[datetime, datetime]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DURATION = re.compile(r"PT(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?", re.ASCII)


class BadRequestError(Exception):
    """The API rejects a parameter. The text is the body of the 400 response."""


def asked_window(query: Mapping[str, str], now: datetime) -> Window:
    """Returns the requested half-open window. Raises BadRequestError with the API's message."""
    given = [form for form in WINDOW_FORMS if form in query]
    if len(given) != 1:
        raise BadRequestError("Exactly one of interval, sinceSeconds and sinceTime must be given")
    window = _read(given[0], query[given[0]], now)
    check(window, now)
    return window


def check(window: Window, now: datetime) -> None:
    """Raises BadRequestError if a window breaks a rule at the server's `now`."""
    start, end = window
    if end - start < SHORTEST:
        raise BadRequestError(TOO_SHORT)
    if end - start > LONGEST:
        raise BadRequestError(TOO_LONG)
    if start < now - REACH:
        raise BadRequestError(TOO_FAR)
    if end > now:
        raise BadRequestError(STILL_CURRENT)


def _read(form: str, text: str, now: datetime) -> Window:
    if form == "interval":
        return _interval(text)
    # For these two forms, the end is the server's own clock, rounded down to the minute.
    end = now.replace(second=0, microsecond=0)
    if form == "sinceTime":
        return _time(text), end
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise BadRequestError(f"sinceSeconds is not a number: {text}")
    return end - timedelta(seconds=int(text)), end


def _interval(text: str) -> Window:
    """`START/END`, `PT30M/END` or `START/PT30M`."""
    first, slash, second = text.partition("/")
    if not slash:
        raise BadRequestError(f"The interval is malformed: {text}")
    if first.startswith("P"):
        end = _time(second)
        return end - _duration(first), end
    start = _time(first)
    return (start, start + _duration(second)) if second.startswith("P") else (start, _time(second))


def _time(text: str) -> datetime:
    # An unencoded plus sign arrives as a space and is rejected here, as the API does.
    if not _TIME.fullmatch(text):
        raise BadRequestError(f"The time is malformed: {text}")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise BadRequestError(f"There is no such time: {text}") from error


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if not match:
        raise BadRequestError(f"The duration is malformed: {text}")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
