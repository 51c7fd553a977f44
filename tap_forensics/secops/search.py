"""Whether a line has arrived in SecOps, and whether it became an event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from tap_forensics.secops.connection import Secops
from tap_forensics.secops.failures import Question

_FEW = 10


@dataclass(frozen=True)
class Wanted:
    """A line: `marker` is a regular expression, `other_types` are those whose lines it may match too."""

    log_type: str
    marker: str
    other_types: frozenset[str]


class _LogType(msgspec.Struct, rename="camel"):
    display_name: str | None = None


class _Match(msgspec.Struct, rename="camel"):
    log_type: _LogType | str | None = None


class _Logs(msgspec.Struct):
    matches: list[_Match] | None = None


class _Events(msgspec.Struct):
    events: list[dict[str, Any]]


def count_raw_logs(secops: Secops, wanted: Wanted, since: datetime, until: datetime) -> int:
    """Raw logs that are the line, at most a few. Raises `SecopsFailed`."""
    answer = secops.ask(
        Question(f"search the raw logs of {wanted.log_type}"),
        lambda: secops.client.search_raw_logs(
            f"raw = /{wanted.marker}/", since, until, log_types=[wanted.log_type], page_size=_FEW
        ),
        _Logs | list[_Logs],  # type: ignore[arg-type]  # an instance streams a list of parts
    )
    parts: list[_Logs] = answer if isinstance(answer, list) else [answer]
    return sum(not _is_of(match, wanted.other_types) for part in parts for match in part.matches or [])


def _is_of(match: _Match, log_types: frozenset[str]) -> bool:
    """An instance may ignore the filter by log type, and may send a title of the type or none."""
    found = match.log_type.display_name if isinstance(match.log_type, _LogType) else match.log_type
    return bool(found) and str(found).upper().replace(" ", "_") in log_types


def has_events(secops: Secops, log_type: str, since: datetime, until: datetime) -> bool:
    """Whether there is an event of this log type. Raises `SecopsFailed`."""
    query = f'metadata.log_type = "{log_type}"'
    answer = secops.ask(
        Question(f"search the events of {log_type}", "chronicle.events.udmSearch"),
        lambda: secops.client.search_udm(query, since, until, max_events=1),
        _Events,
    )
    return bool(answer.events)
