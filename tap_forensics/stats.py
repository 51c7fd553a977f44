"""The figures of one run, for its final log line and for the metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class RunStats:
    """Counts of one run; the unit of the others is in the name. `tenant` is empty for the single one.
    `outcome` is how the run ended:

    `complete` · `incomplete` (some items stay open) · `busy` (another run holds the lease) · `failed`.
    `windows_planned` and `threats_chosen` are what the run planned; `threats_answered` counts responses,
    written or not. `backlog_growth` is negative if the backlog shrank. `*_calls_left` is None if there is no
    limit.
    """

    outcome: str = "failed"
    reason: str = ""
    tenant: str = ""
    run_id: str = ""
    windows_planned: int = 0
    windows: int = 0
    windows_failed: int = 0
    events: int = 0
    odd_entries: int = 0
    extra_calls: int = 0
    event_lines: int = 0
    event_bytes: int = 0
    event_objects: int = 0
    events_repeated: int = 0
    events_updated: int = 0
    threats_found: int = 0
    threats_new: int = 0
    threats_chosen: int = 0
    threats_answered: int = 0
    threats_fetched: int = 0
    threats_skipped: int = 0
    threats_failed: int = 0
    threats_given_up: int = 0
    threats_left: int = 0
    reports: int = 0
    lines: int = 0
    lines_bytes: int = 0
    objects: int = 0
    siem_calls: int = 0
    siem_429s: int = 0
    siem_calls_left: int | None = None
    forensics_calls: int = 0
    forensics_429s: int = 0
    forensics_calls_left: int | None = None
    gaps: int = 0
    lost_intervals: int = 0
    backlog_growth: int = 0
    oldest_backlog_seconds: int = 0
    oldest_gap_seconds: int = 0
    cursor_lag_seconds: int | None = None
    seconds: float = 0.0

    def as_fields(self) -> dict[str, Any]:
        return asdict(self)
