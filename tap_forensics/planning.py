"""The plan of a run. It is in the commit that takes the lease, so it is kept if the run dies."""

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
    """Opens the windows from the cursor to now, and `again`. Removes expired items.

    What is removed is logged before the commit: two log lines are better than none.
    """
    now = run.clock.now()
    _log_expired(run, expire(state, now))
    read_range = _read_range(run, state.last_event_time, now)
    start, end = read_range.window.start, read_range.window.end
    run.log.info("Fetching threats from %s to %s", iso(start), iso(end))
    plan(state, read_range, now)
    if again:
        reopen(state, again, now)
    prune(state, now, run.settings.forensics.dedup_hours)
    if state.lease and not dead_lease:
        state.lease.reading = [(window.start, window.end) for window in first_group(state, now)]


def count_suspects(run: RunContext) -> None:
    """Marks what a dead run had in flight and did not finish: it is asked for alone."""
    with run.store.transaction() as state:
        lease = run.store.lease
        quarantined = count_kills(state, lease, run.clock.now())
        lease.asking, lease.asking_campaigns, lease.asking_summaries, lease.reading = [], [], [], []
    for name in quarantined:
        run.log.error(
            "%s was in flight when two runs died: it will be retried in a day", escape_unprintable(name)
        )


def _read_range(run: RunContext, cursor: datetime | None, now: datetime) -> ReadRange:
    settings = run.settings
    lookback = timedelta(hours=settings.windows.lookback_hours)
    read_range = plan_range(
        cursor,
        now,
        lookback=now - settings.windows.since_time if settings.windows.since_time else lookback,
        overlap=timedelta(minutes=settings.windows.overlap_minutes),
        lag=timedelta(seconds=settings.windows.end_lag_seconds),
    )
    if read_range.expired:
        run.log.log(
            logging.WARNING if cursor is None else logging.ERROR,
            "Warning: Lookback capped to 7 days (TAP API limit): %s can no longer be read",
            read_range.expired,
        )
        if cursor:
            _log_lost(run, read_range.expired)
    return read_range


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
            "Removed threat %s from the backlog after 7 days: its campaign's report was delivered",
            escape_unprintable(threat_id),
        )
    for threat_id in expired.summaries:
        run.log.error(
            "Gave up the summary of threat %s: last seen 7 days ago, it could not be fetched",
            escape_unprintable(threat_id),
        )
    run.stats.threats_given_up += len(expired.threats) + len(expired.covered)


def _log_lost(run: RunContext, window: Window) -> None:
    run.stats.lost_intervals += 1
    run.log.error("Lost interval %s: its events were not read, and TAP keeps events for 7 days only", window)
