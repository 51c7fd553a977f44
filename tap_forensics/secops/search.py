"""Whether a line has arrived in SecOps, and whether it became an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from tap_forensics.secops.connection import Secops
from tap_forensics.secops.failures import Question

_FEW = 10


class _LogType(msgspec.Struct, rename="camel"):
    display_name: str | None = None


class _Match(msgspec.Struct, rename="camel"):
    log_type: _LogType | str | None = None


class _Logs(msgspec.Struct):
    matches: list[_Match] | None = None


class _Events(msgspec.Struct):
    events: list[dict[str, Any]]


def count_raw_logs(secops: Secops, log_type: str, marker: str, since: datetime, until: datetime) -> int:
    """Raw logs of this type that match the regular expression `marker`, at most a few.

    Raises `SecopsFailed`.
    """
    answer = secops.ask(
        Question(f"search the raw logs of {log_type}"),
        lambda: secops.client.search_raw_logs(
            f"raw = /{marker}/", since, until, log_types=[log_type], page_size=_FEW
        ),
        _Logs | list[_Logs],  # type: ignore[arg-type]  # an instance streams a list of parts
    )
    parts: list[_Logs] = answer if isinstance(answer, list) else [answer]
    return sum(_is_of(match, log_type) for part in parts for match in part.matches or [])


def _is_of(match: _Match, log_type: str) -> bool:
    """An instance may ignore the filter by log type. A match without a log type counts."""
    found = match.log_type.display_name if isinstance(match.log_type, _LogType) else match.log_type
    return not found or found.upper().replace(" ", "_") == log_type


def has_events(secops: Secops, log_type: str, since: datetime, until: datetime) -> bool:
    """Whether there is an event of this log type. Raises `SecopsFailed`."""
    query = f'metadata.log_type = "{log_type}"'
    answer = secops.ask(
        Question(f"search the events of {log_type}", "chronicle.events.udmSearch"),
        lambda: secops.client.search_udm(query, since, until, max_events=1),
        _Events,
    )
    return bool(answer.events)
