"""`tap-forensics status`: how things stand, from the state object and the newest names. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import click
from google.cloud.storage import Client

from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.objects import EVENTS_STEM, EVIDENCE_STEM, ObjectInfo, list_own
from tap_forensics.cli.terminal import ago, fields, grid, lasting, many
from tap_forensics.clock import iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.open_items import read_until
from tap_forensics.storage.state import State
from tap_forensics.storage.state_store import FoundState, find_state
from tap_forensics.tap.quota import FORENSICS, SIEM, Pool, counted_buckets, counts_until
from tap_forensics.tap.windows import EDGE_MARGIN, RETENTION

_BUCKET_SECONDS = 30
_NEWEST = 5
# Names carry their time: each step looks further back, until there is enough to show.
_STEPS = (timedelta(hours=3), timedelta(days=1), timedelta(days=8))
_NAMES_AT_MOST = 5000
_PRIORITIES = {0: "permitted clicks", 1: "delivered mails", 2: "blocked"}


@click.command(
    epilog="""\b
Example:
  GCS_BUCKET=proofpoint-tap-forensics-logs tap-forensics status
\b
--json: {"now", "bucket", "state", "last_run_id", "cursor", "cursor_lag_seconds",
  "lease": null | {"run_id", "until", "live"},
  "backlog": [{"priority", "threats", "oldest", "failing"}],
  "gaps": [{"start", "end", "attempts", "seconds_left"}], "lost": [{"start", "end", "why"}],
  "calls": {POOL: {"used", "limit", "left", "next_back", "all_back", "limited_at"}},
  "newest": {PREFIX: [{"name", "size_bytes", "updated"}]}}
"""
)
@cli_command
def status(context: CommandContext) -> Exit:
    """How things stand: last run, cursor, backlog, gaps, calls and the newest objects.

    Reads only and never takes the lease. TAP's credentials are not needed.
    """
    settings = context.settings(credentials=False)
    with context.client(settings) as client:
        now = context.clock.now()
        bucket = Bucket(client, settings.bucket.name, lambda: _BUCKET_SECONDS)
        found = find_state(bucket, state_location(settings), context.clock, settings.run.lease_seconds)
        standing = stand(found, settings, now) | {"newest": newest_of_all(client, settings, now)}
    if context.as_json:
        context.print_json(standing)
    else:
        _show(context, standing, now)
    return Exit.GOOD


def stand(found: FoundState, settings: Settings, now: datetime) -> dict[str, Any]:
    """The state in figures; shape as the command's help says."""
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
        "gaps": [
            {
                "start": gap.start,
                "end": gap.end,
                "attempts": gap.attempts,
                "seconds_left": _seconds(gap.start + RETENTION - EDGE_MARGIN - now),
            }
            for gap in state.gaps
        ],
        "lost": [{"start": lost.start, "end": lost.end, "why": lost.why} for lost in state.lost],
        "calls": {
            SIEM: calls(state.calls.get(SIEM, Pool()), settings.tap.siem_daily_limit, now),
            FORENSICS: calls(state.calls.get(FORENSICS, Pool()), settings.tap.forensics_daily_limit, now),
        },
    }


def _lease(found: FoundState, now: datetime) -> dict[str, Any] | None:
    lease, left = found.state.lease, found.lease_left_seconds
    if lease is None or left is None:
        return None
    return {"run_id": lease.run_id, "until": now + timedelta(seconds=left), "live": found.live}


def calls(pool: Pool, limit: int | None, now: datetime) -> dict[str, Any]:
    """One pool of the ledger: calls of the last 24 hours, and when they come back."""
    buckets = counted_buckets(pool, now)
    used = sum(buckets.values())
    return {
        "used": used,
        "limit": limit,
        "left": None if limit is None else max(0, limit - used),
        "next_back": counts_until(min(buckets)) if buckets else None,
        "all_back": counts_until(max(buckets)) if buckets else None,
        "limited_at": pool.limited_at,
    }


def _backlog(state: State) -> Iterator[dict[str, Any]]:
    for priority in sorted({threat.priority for threat in state.backlog.values()}):
        group = [threat for threat in state.backlog.values() if threat.priority == priority]
        yield {
            "priority": priority,
            "threats": len(group),
            "oldest": min(threat.first_seen for threat in group),
            "failing": sum(threat.attempts > 0 for threat in group),
        }


def newest_of_all(client: Client, settings: Settings, now: datetime) -> dict[str, list[dict[str, Any]]]:
    feeds = [(settings.bucket.prefix, EVIDENCE_STEM)]
    if settings.events.prefix is not None:
        feeds.append((settings.events.prefix, EVENTS_STEM))
    return {
        prefix: [
            {"name": found.name, "size_bytes": found.size_bytes, "updated": found.updated}
            for found in _newest(client, settings.bucket.name, prefix, stem, now)
        ]
        for prefix, stem in feeds
    }


def _newest(client: Client, bucket: str, prefix: str, stem: str, now: datetime) -> list[ObjectInfo]:
    """The last few by name, without a look at all that lies before them."""
    found: list[ObjectInfo] = []
    for step in _STEPS:
        found = list(list_own(client, bucket, prefix, stem, now - step, _NAMES_AT_MOST))
        if len(found) >= _NEWEST:
            break
    return found[: -_NEWEST - 1 : -1]


def _show(context: CommandContext, standing: dict[str, Any], now: datetime) -> None:
    context.out.print(fields(f"gs://{standing['bucket']}/{standing['state']}", _head(standing, now)))
    if standing["backlog"]:
        rows = [
            (_PRIORITIES.get(b["priority"], b["priority"]), b["threats"], ago(b["oldest"], now), b["failing"])
            for b in standing["backlog"]
        ]
        context.out.print(grid("Backlog", ("seen in", "threats", "oldest", "failing"), rows))
    if standing["gaps"]:
        gaps = [
            (f"{iso(g['start'])}/{iso(g['end'])}", g["attempts"], _left(g["seconds_left"]))
            for g in standing["gaps"]
        ]
        context.out.print(grid("Gaps", ("interval", "attempts", "TAP forgets it in"), gaps))
    pools = [(name, *_pool(pool, now)) for name, pool in standing["calls"].items()]
    context.out.print(
        grid("Calls of the last 24 hours", ("pool", "used", "limit", "next back", "all back"), pools)
    )
    for prefix, found in standing["newest"].items():
        objects = [(entry["name"], f"{entry['size_bytes']:,}", ago(entry["updated"], now)) for entry in found]
        title = f"Newest objects in {prefix or 'the bucket'}/"
        context.out.print(
            grid(title, ("object", "bytes", "written"), objects or [("(none in 8 days)", "", "")])
        )


def _head(standing: dict[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    lease = standing["lease"]
    yield "last run", standing["last_run_id"] or "none yet"
    if lease and lease["live"]:
        yield "running", f"{lease['run_id']}, its lease holds until {iso(lease['until'])}"
    elif lease:
        yield "died", f"{lease['run_id']}; the next run takes it over"
    yield "cursor", ago(standing["cursor"], now)
    yield "backlog", many(sum(b["threats"] for b in standing["backlog"]), "threat")
    yield "gaps", str(len(standing["gaps"]))
    if standing["lost"]:
        last = standing["lost"][-1]
        words = f"{iso(last['start'])}/{iso(last['end'])}: {last['why']}"
        yield "lost intervals", f"{len(standing['lost'])}, the last {words}"


def _pool(pool: dict[str, Any], now: datetime) -> tuple[object, ...]:
    limit = "none set" if pool["limit"] is None else f"{pool['limit']:,}"
    if pool["limited_at"]:
        limit += f", 429 {ago(pool['limited_at'], now)}"
    back = [f"in {lasting(pool[key] - now)}" if pool[key] else "" for key in ("next_back", "all_back")]
    return (f"{pool['used']:,}", limit, *back)


def _left(seconds: int) -> str:
    return lasting(timedelta(seconds=seconds)) if seconds > 0 else "has begun"


def _seconds(span: timedelta) -> int:
    return int(span / timedelta(seconds=1))
