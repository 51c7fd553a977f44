"""The figures of one run, for its final log line and for the metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any


@dataclass
class RunStats:
    """Counts of one run; `*_seconds` and `*_bytes` have other units. The meanings are also in
    docs/reference/log-fields.md, which is generated from this list.
    """

    outcome: Annotated[
        str,
        "how the run ended: `complete`, `incomplete` (some items stay open), `busy` "
        "(another run holds the lease) or `failed`",
    ] = "failed"
    reason: Annotated[str, "why, if it is not `complete`"] = ""
    tenant: Annotated[str, "the tenant of the message; empty for the single tenant"] = ""
    run_id: Annotated[str, "`YYYYMMDD_HHMMSS`; part of the name of each object of the run"] = ""
    windows_planned: Annotated[int, "SIEM windows that the run planned to read"] = 0
    windows: Annotated[int, "SIEM windows that were requested; a window may cost several calls"] = 0
    windows_failed: Annotated[int, "SIEM windows that TAP did not answer; each stays open"] = 0
    events: Annotated[int, "SIEM events in the windows that were read"] = 0
    odd_entries: Annotated[int, "entries that were skipped because they have no valid threat ID"] = 0
    extra_calls: Annotated[int, "calls for parts of a window that was too heavy as a whole"] = 0
    event_lines: Annotated[int, "event lines written (`EVENTS_PREFIX`)"] = 0
    event_bytes: Annotated[int, "bytes of these lines"] = 0
    event_objects: Annotated[int, "objects with event lines"] = 0
    events_repeated: Annotated[int, "events not written again, because they were delivered before"] = 0
    events_updated: Annotated[int, "events written once more with `_update`, because a verdict changed"] = 0
    threats_found: Annotated[int, "different threat IDs in the windows that were read"] = 0
    threats_new: Annotated[int, "of these, threats that were neither open nor collected before"] = 0
    threats_chosen: Annotated[int, "threats that the run selected to fetch, at most `MAX_THREATS`"] = 0
    threats_answered: Annotated[int, "threats that were requested, whatever the response"] = 0
    threats_fetched: Annotated[int, "threats whose evidence is written"] = 0
    threats_skipped: Annotated[int, "threats for which TAP itself has no evidence"] = 0
    threats_failed: Annotated[int, "threats without a usable response; each stays open"] = 0
    threats_given_up: Annotated[int, "threats that left the backlog unread, each named in the log"] = 0
    threats_left: Annotated[int, "threats on the backlog at the end"] = 0
    threats_covered: Annotated[
        int, "of these, threats whose campaign's report was delivered in the last 7 days"
    ] = 0
    threats_uncovered: Annotated[int, "the other threats on the backlog at the end"] = 0
    reports: Annotated[int, "forensic reports in the lines"] = 0
    threat_reports: Annotated[int, "of these, the threats' own reports"] = 0
    campaign_reports: Annotated[int, "of these, reports of campaigns"] = 0
    lines: Annotated[int, "evidence lines written; a long report takes several"] = 0
    lines_bytes: Annotated[int, "bytes of these lines"] = 0
    objects: Annotated[int, "evidence objects written"] = 0
    siem_calls: Annotated[int, "calls to the SIEM API"] = 0
    siem_429s: Annotated[int, "of these, calls that TAP answered with 429"] = 0
    siem_calls_left: Annotated[int | None, "calls left of `TAP_SIEM_DAILY_LIMIT`"] = None
    forensics_calls: Annotated[int, "calls to the Forensics API, of all types"] = 0
    forensics_429s: Annotated[int, "of these, calls that TAP answered with 429"] = 0
    forensics_calls_left: Annotated[
        int | None, "calls left by `threatId` with the campaign's reports; null if no limit is known"
    ] = None
    threat_forensics_calls: Annotated[int, "of `forensics_calls`, calls by `threatId` alone"] = 0
    threat_forensics_calls_left: Annotated[int | None, "calls left of these; null if no limit is known"] = (
        None
    )
    campaign_forensics_calls: Annotated[int, "of `forensics_calls`, calls by `campaignId`"] = 0
    campaign_forensics_calls_left: Annotated[int | None, "calls left of these; null if no limit is known"] = (
        None
    )
    summaries: Annotated[int, "threat summaries written (`SUMMARIES_PREFIX`)"] = 0
    summary_bytes: Annotated[int, "bytes of these lines"] = 0
    summary_objects: Annotated[int, "objects with threat summaries"] = 0
    summaries_skipped: Annotated[int, "threats of which TAP has no summary"] = 0
    summaries_failed: Annotated[int, "summaries without a usable response; each stays open"] = 0
    summaries_left: Annotated[int, "open summaries at the end"] = 0
    summary_calls: Annotated[int, "calls for threat summaries"] = 0
    summary_429s: Annotated[int, "of these, calls that TAP answered with 429"] = 0
    gaps: Annotated[int, "open windows at the end"] = 0
    lost_intervals: Annotated[int, "windows that expired unread, each named in the log"] = 0
    backlog_growth: Annotated[
        int, "threats that joined the backlog less those that left it; may be negative"
    ] = 0
    oldest_backlog_seconds: Annotated[int, "how long the oldest threat on the backlog has waited"] = 0
    oldest_gap_seconds: Annotated[int, "age of the start of the oldest open window"] = 0
    cursor_lag_seconds: Annotated[int | None, "how far behind now the events that were read end"] = None
    seconds: Annotated[float, "how long the run took"] = 0.0

    def as_fields(self) -> dict[str, Any]:
        return asdict(self)
