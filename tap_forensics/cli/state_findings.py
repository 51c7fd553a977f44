"""What the state tells an operator, each fault with its remedy: for `check` and `status` alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from tap_forensics.cli.diagnosis import Finding, ok, warning, wrong
from tap_forensics.cli.terminal import lasting, many
from tap_forensics.clock import iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import RunFailed
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.event_dedup import decode as decode_index
from tap_forensics.storage.open_items import read_until
from tap_forensics.storage.state import State
from tap_forensics.storage.state_store import FoundState
from tap_forensics.tap.quota import (
    FORENSICS,
    POOLS,
    SIEM,
    Pool,
    Quota,
    counted_buckets,
    counts_until,
    daily_limits,
)
from tap_forensics.tap.windows import RETENTION

_LATE = timedelta(hours=2)
_EDGE_NEAR = timedelta(days=1)
_FEW_LEFT = 0.1


def place_finding(settings: Settings) -> Finding:
    """Where the state is, and whether a feed would ingest it."""
    where = f"gs://{settings.bucket.name}/{state_location(settings).name}"
    if settings.bucket.prefix:
        return ok("state place", f"{where}, outside the feeds' folders")
    return warning(
        "state place",
        f"{where}; GCS_PREFIX is empty, so a feed of the whole bucket ingests the state",
        "set GCS_PREFIX and let the feed read that folder",
    )


def state_findings(found: FoundState, settings: Settings, now: datetime) -> Iterator[Finding]:
    """Cursor, lease, gaps and calls of a state that could be read."""
    yield _cursor(found, now)
    yield _lease(found, now)
    yield from _gaps(found.state, now)
    for name, pool in call_pools(found.state, settings, now).items():
        yield _calls(name, pool)


def index_findings(bucket: Bucket, settings: Settings) -> Iterator[Finding]:
    """The event dedup index, which is only used with EVENTS_PREFIX."""
    if settings.events.prefix is None:
        return
    name = f"{state_location(settings).name}.seen"
    try:
        stored = bucket.read(name)
        known = len(decode_index(stored.data, f"gs://{bucket.name}/{name}").entries) if stored else 0
    except RunFailed as error:
        yield wrong("events' memory", str(error))
    else:
        yield ok("events' memory", f"readable, {many(known, 'event')}")


def _cursor(found: FoundState, now: datetime) -> Finding:
    state = found.state
    if state.last_event_time is None:
        return ok("state", "none yet: the first run reads back LOOKBACK_HOURS, or from SINCE_TIME")
    lag = now - (read_until(state) or state.last_event_time)
    written_by = "" if found.generation else " (written by the published function)"
    words = f"readable{written_by}, its cursor is {lasting(lag)} old"
    if lag > RETENTION:
        return wrong("state", words, "TAP keeps 7 days: older events are lost; start a run now")
    if lag > _LATE:
        return warning("state", words, "check that the schedule is running, and the log of the last runs")
    return ok("state", words)


def _lease(found: FoundState, now: datetime) -> Finding:
    lease, left = found.state.lease, found.lease_left_seconds
    if lease is None or left is None:
        return ok("lease", "free")
    if found.live:
        return ok("lease", f"held by run {lease.run_id} until {iso(now + timedelta(seconds=left))}")
    return warning("lease", f"run {lease.run_id} died", "nothing to do: the next run takes it over")


def _gaps(state: State, now: datetime) -> Iterator[Finding]:
    if not state.gaps:
        return
    left = min(gap.start for gap in state.gaps) + RETENTION - now
    count = many(len(state.gaps), "interval")
    if left <= timedelta():
        words = f"{count} could not be read yet; TAP has begun to forget the first"
    else:
        words = f"{count} could not be read yet; TAP forgets the first in {lasting(left)}"
    soon = "start a run now, and " if left < _EDGE_NEAR else ""
    yield warning("gaps", words, f"{soon}see the log for TAP's answers; each run tries again")


def call_pools(state: State, settings: Settings, now: datetime) -> dict[str, dict[str, Any]]:
    """The pools of the quota in use, by name: calls of the last 24 hours, and when they come back."""
    limits = daily_limits(settings.tap)
    quota = Quota(state.calls, limits)
    pools = {name: state.calls.get(name, Pool()) for name in POOLS}
    return {
        name: _pool(pool, limits[name], quota.left(name, now), now)
        for name, pool in pools.items()
        if name in (SIEM, FORENSICS) or pool.used(now) or pool.limited_at
    }


def _pool(pool: Pool, limit: int | None, left: int | None, now: datetime) -> dict[str, Any]:
    buckets = counted_buckets(pool.buckets, now)
    return {
        "used": pool.used(now),
        "limit": pool.learned if limit is None else limit,
        "left": left,
        "next_back": counts_until(min(buckets)) if buckets else None,
        "all_back": counts_until(max(buckets)) if buckets else None,
        "limited_at": pool.limited_at,
    }


def _calls(name: str, pool: dict[str, Any]) -> Finding:
    words, limit, left = f"{pool['used']:,} {name} calls in 24 hours", pool["limit"], pool["left"]
    if pool["limited_at"]:
        since = iso(pool["limited_at"])
        return warning("calls", f"{words}; limited by 429 at {since}", "nothing to do: calls come back")
    if limit is None:
        return ok("calls", f"{words}; no limit is set")
    if left == 0:
        back = f"wait: the next comes back at {iso(pool['next_back'])}" if pool["next_back"] else ""
        return wrong("calls", f"{words} of {limit:,}: none left", back)
    if left < limit * _FEW_LEFT:
        return warning(
            "calls", f"{words} of {limit:,}: {left:,} left", "run less often: it needs fewer calls"
        )
    return ok("calls", f"{words} of {limit:,}: {left:,} left")
