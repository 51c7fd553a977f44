"""What a run sets out to do: part of the commit that takes the lease, so that it outlives the run."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from tap_forensics.clock import iso
from tap_forensics.context import RunContext
from tap_forensics.discovery.discover import first_group
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.open_items import Expired, count_kills, expire, plan, prune, reopen
from tap_forensics.storage.state import Lease, State
from tap_forensics.tap.windows import ReadRange, Window, plan_range


def plan_run(run: RunContext, state: State, dead_lease: Lease | None, again: Window | None) -> None:
    """Opens the windows from the cursor to now, and `again`; takes out what expired.

    Whatever leaves the state here is logged before it is committed: rather twice than never.
    """
    now = run.clock.now()
    _log_expired(run, expire(state, now))
    span = _span(run, state.last_event_time, now)
    run.log.info("Fetching threats from %s to %s", iso(span.window.start), iso(span.window.end))
    plan(state, span, now)
    if again:
        reopen(state, again, now)
    prune(state, now, run.settings.forensics.dedup_hours)
    if state.lease and not dead_lease:
        state.lease.reading = [(window.start, window.end) for window in first_group(state, now)]


def count_suspects(run: RunContext) -> None:
    """After a run died: what it had in flight and did not finish is asked for alone."""
    with run.store.transaction() as state:
        lease = run.store.lease
        quarantined = count_kills(state, lease, run.clock.now())
        lease.asking, lease.reading = [], []
    for name in quarantined:
        run.log.error(
            "%s was in flight when two runs died: it is asked for again in a day", escape_unprintable(name)
        )


def _span(run: RunContext, cursor: datetime | None, now: datetime) -> ReadRange:
    settings = run.settings
    lookback = timedelta(hours=settings.windows.lookback_hours)
    span = plan_range(
        cursor,
        now,
        lookback=now - settings.windows.since_time if settings.windows.since_time else lookback,
        overlap=timedelta(minutes=settings.windows.overlap_minutes),
        lag=timedelta(seconds=settings.windows.end_lag_seconds),
    )
    if span.expired:
        run.log.log(
            logging.WARNING if cursor is None else logging.ERROR,
            "Warning: Lookback capped to 7 days (TAP API limit): %s can no longer be asked for",
            span.expired,
        )
        if cursor:
            _log_lost(run, span.expired)
    return span


def _log_expired(run: RunContext, expired: Expired) -> None:
    for window in expired.windows:
        _log_lost(run, window)
    for threat_id, threat in expired.threats.items():
        run.log.error(
            "Gave up threat %s: last seen 7 days ago, its forensics could not be fetched (%d attempts)",
            escape_unprintable(threat_id),
            threat.attempts,
        )
    for threat_id in expired.covered:
        run.log.info(
            "Threat %s leaves the backlog after 7 days: its campaign's report was delivered",
            escape_unprintable(threat_id),
        )
    run.stats.threats_given_up += len(expired.threats) + len(expired.covered)


def _log_lost(run: RunContext, window: Window) -> None:
    run.stats.lost_intervals += 1
    run.log.error("Lost interval %s: its events were not read. TAP keeps 7 days only", window)
