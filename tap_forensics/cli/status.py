"""`tap-forensics status`: a summary of the state object and of the newest objects. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import click
from google.cloud.storage import Client

from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.diagnosis import Finding
from tap_forensics.cli.objects import Feed, ObjectInfo, feeds, list_own
from tap_forensics.cli.state_findings import call_pools, index_findings, place_finding, state_findings
from tap_forensics.cli.terminal import ago, lasting, many, print_fields, print_grid
from tap_forensics.clock import iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.open_items import is_covered, read_until
from tap_forensics.storage.state import State
from tap_forensics.storage.state_store import FoundState, find_state
from tap_forensics.tap.windows import EDGE_MARGIN, RETENTION

_BUCKET_SECONDS = 30
_NEWEST = 5
# Names contain their time: each step looks further back, until there is enough to show.
_STEPS = (timedelta(hours=3), timedelta(days=1), timedelta(days=8))
_MAX_NAMES = 5000
_PRIORITIES = {0: "permitted clicks", 1: "delivered mails", 2: "blocked"}


@click.command(
    epilog="""\b
Example:
  GCS_BUCKET=proofpoint-tap-forensics-logs tap-forensics status
\b
--json: {"now", "bucket", "state", "last_run_id", "cursor", "cursor_lag_seconds",
  "lease": null | {"run_id", "until", "live"},
  "backlog": [{"priority", "threats", "oldest", "failing", "covered"}], "summaries_left",
  "gaps": [{"start", "end", "attempts", "seconds_left"}], "lost": [{"start", "end", "why"}],
  "calls": {POOL: {"used", "limit", "left", "next_back", "all_back", "limited_at"}},
  "newest": {PREFIX: [{"name", "size_bytes", "updated"}]},
  "findings": [{"mark": "warning"|"wrong", "about", "words", "remedy"}]}
"""
)
@cli_command
def status(context: CommandContext) -> Exit:
    """Show last run, cursor, backlog, gaps, calls, newest objects, and what needs attention.

    Reads only and never takes the lease. TAP's credentials are not needed.
    """
    settings = context.settings(credentials=False)
    with context.client(settings) as client:
        now = context.clock.now()
        bucket = Bucket(client, settings.bucket.name, lambda: _BUCKET_SECONDS)
        found = find_state(bucket, state_location(settings), context.clock, settings.run.lease_seconds)
        faults = _faults(bucket, found, settings, now)
        state = describe(found, settings, now) | {"newest": _newest_of_all(client, settings, now)}
    if context.as_json:
        context.print_json(state | {"findings": [asdict(fault) for fault in faults]})
    else:
        _show(context, state, now)
        for fault in faults:
            context.print_finding(fault)
    return Exit.GOOD


def describe(found: FoundState, settings: Settings, now: datetime) -> dict[str, Any]:
    """The state in figures, as the command's help lists them."""
    state = found.state
    until = read_until(state)
    return {
        "now": now,
        "bucket": settings.bucket.name,
        "state": state_location(settings).name,
        "last_run_id": state.last_run_id,
        "cursor": state.last_event_time,
        "cursor_lag_seconds": _seconds(now - until) if until else None,
        "lease": _lease(found, now),
        "backlog": list(_backlog(state)),
        "gaps": list(_gaps(state, now)),
        "lost": [{"start": lost.start, "end": lost.end, "why": lost.why} for lost in state.lost],
        "summaries_left": len(state.summaries),
        "calls": call_pools(state, settings, now),
    }


def _gaps(state: State, now: datetime) -> Iterator[dict[str, Any]]:
    for gap in state.gaps:
        left = gap.start + RETENTION - EDGE_MARGIN - now
        yield {
            "start": gap.start,
            "end": gap.end,
            "attempts": gap.attempts,
            "seconds_left": _seconds(left),
        }


def _lease(found: FoundState, now: datetime) -> dict[str, Any] | None:
    lease, left = found.state.lease, found.lease_left_seconds
    if lease is None or left is None:
        return None
    return {"run_id": lease.run_id, "until": now + timedelta(seconds=left), "live": found.live}


def _backlog(state: State) -> Iterator[dict[str, Any]]:
    for priority in sorted({threat.priority for threat in state.backlog.values()}):
        group = [threat for threat in state.backlog.values() if threat.priority == priority]
        yield {
            "priority": priority,
            "threats": len(group),
            "oldest": min(threat.first_seen for threat in group),
            "failing": sum(threat.attempts > 0 for threat in group),
            "covered": sum(is_covered(state, threat) for threat in group),
        }


def _newest_of_all(client: Client, settings: Settings, now: datetime) -> dict[str, list[dict[str, Any]]]:
    return {
        feed.prefix: [
            {"name": found.name, "size_bytes": found.size_bytes, "updated": found.updated}
            for found in _newest(client, settings.bucket.name, feed, now)
        ]
        for feed in feeds(settings)
    }


def _newest(client: Client, bucket: str, feed: Feed, now: datetime) -> list[ObjectInfo]:
    """The last few by name, without listing everything before them."""
    found: list[ObjectInfo] = []
    for step in _STEPS:
        found = list(list_own(client, bucket, feed, now - step, _MAX_NAMES))
        if len(found) >= _NEWEST:
            break
    return found[: -_NEWEST - 1 : -1]


def _faults(bucket: Bucket, found: FoundState, settings: Settings, now: datetime) -> list[Finding]:
    """What `check` finds wrong with the state, with the same remedies."""
    findings = [place_finding(settings), *state_findings(found, settings, now)]
    findings += index_findings(bucket, settings)
    return [finding for finding in findings if finding.mark != "ok"]


def _show(context: CommandContext, state: dict[str, Any], now: datetime) -> None:
    print_fields(context.out, f"gs://{state['bucket']}/{state['state']}", _head(state, now))
    _show_open_items(context, state, now)
    pools = [(name, *_pool(pool, now)) for name, pool in state["calls"].items()]
    columns = ("pool", "used", "limit", "next back", "all back")
    print_grid(context.out, "Calls of the last 24 hours", columns, pools)
    for prefix, found in state["newest"].items():
        objects = [(entry["name"], f"{entry['size_bytes']:,}", ago(entry["updated"], now)) for entry in found]
        title = f"Newest objects in {prefix or 'the bucket'}/"
        none = [("(none in 8 days)", "", "")]
        print_grid(context.out, title, ("object", "bytes", "written"), objects or none)


def _show_open_items(context: CommandContext, state: dict[str, Any], now: datetime) -> None:
    if state["backlog"]:
        rows = [
            (
                _PRIORITIES.get(b["priority"], b["priority"]),
                b["threats"],
                ago(b["oldest"], now),
                b["failing"],
                b["covered"],
            )
            for b in state["backlog"]
        ]
        print_grid(context.out, "Backlog", ("seen in", "threats", "oldest", "failing", "covered"), rows)
    if state["gaps"]:
        gaps = [
            (f"{iso(gap['start'])}/{iso(gap['end'])}", gap["attempts"], _left(gap["seconds_left"]))
            for gap in state["gaps"]
        ]
        print_grid(context.out, "Gaps", ("interval", "attempts", "TAP forgets it in"), gaps)


def _head(state: dict[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    lease = state["lease"]
    yield "last run", state["last_run_id"] or "none yet"
    if lease and lease["live"]:
        yield "running", f"{lease['run_id']}, its lease holds until {iso(lease['until'])}"
    elif lease:
        yield "died", f"{lease['run_id']}; the next run takes it over"
    yield "cursor", ago(state["cursor"], now)
    yield "backlog", many(sum(b["threats"] for b in state["backlog"]), "threat")
    yield "gaps", str(len(state["gaps"]))
    if state["summaries_left"]:
        yield "open summaries", str(state["summaries_left"])
    if state["lost"]:
        last = state["lost"][-1]
        words = f"{iso(last['start'])}/{iso(last['end'])}: {last['why']}"
        yield "lost intervals", f"{len(state['lost'])}, the last {words}"


def _pool(pool: dict[str, Any], now: datetime) -> tuple[object, ...]:
    limit = "none set" if pool["limit"] is None else f"{pool['limit']:,}"
    if pool["limited_at"]:
        limit += f", 429 {ago(pool['limited_at'], now)}"
    back = [f"in {lasting(pool[key] - now)}" if pool[key] else "" for key in ("next_back", "all_back")]
    return (f"{pool['used']:,}", limit, *back)


def _left(seconds: int) -> str:
    return lasting(timedelta(seconds=seconds)) if seconds > 0 else "now"


def _seconds(span: timedelta) -> int:
    return int(span / timedelta(seconds=1))
