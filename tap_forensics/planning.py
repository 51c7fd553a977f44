"""What a run sets out to do: part of the commit that takes the lease, so that it outlives the run."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from tap_forensics.clock import iso
from tap_forensics.context import RunContext
from tap_forensics.discovery.discover import first_group
from tap_forensics.log import harmless
from tap_forensics.storage.open_items import Expired, count_kills, expire, plan, prune, reopen
from tap_forensics.storage.state import Lease, State
from tap_forensics.tap.windows import Span, Window, plan_span


def plan_run(run: RunContext, state: State, died: Lease | None, again: Window | None) -> None:
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
    prune(state, now, run.settings.dedup_hours)
    if state.lease and not died:
        state.lease.reading = [(window.start, window.end) for window in first_group(state, now)]


def count_suspects(run: RunContext) -> None:
    """After a run died: what it had in flight and did not finish is asked for alone."""
    with run.held.changing() as state:
        lease = run.held.lease
        quarantined = count_kills(state, lease, run.clock.now())
        lease.asking, lease.reading = [], []
    for name in quarantined:
        run.log.error("%s was in flight when two runs died: it is asked for again in a day", harmless(name))


def _span(run: RunContext, cursor: datetime | None, now: datetime) -> Span:
    settings = run.settings
    lookback = timedelta(hours=settings.lookback_hours)
    span = plan_span(
        cursor,
        now,
        lookback=now - settings.since_time if settings.since_time else lookback,
        overlap=timedelta(minutes=settings.overlap_minutes),
        lag=timedelta(seconds=settings.end_lag_seconds),
    )
    if span.beyond:
        run.log.log(
            logging.WARNING if cursor is None else logging.ERROR,
            "Warning: Lookback capped to 7 days (TAP API limit): %s can no longer be asked for",
            span.beyond,
        )
        if cursor:
            _log_lost(run, span.beyond)
    return span


def _log_expired(run: RunContext, expired: Expired) -> None:
    for window in expired.windows:
        _log_lost(run, window)
    for threat_id, threat in expired.threats.items():
        run.log.error(
            "Gave up threat %s: last seen 7 days ago, its forensics could not be fetched (%d attempts)",
            harmless(threat_id),
            threat.attempts,
        )
    for threat_id in expired.covered:
        run.log.info(
            "Threat %s leaves the backlog after 7 days: its campaign's report was delivered",
            harmless(threat_id),
        )
    run.figures.threats_given_up += len(expired.threats) + len(expired.covered)


def _log_lost(run: RunContext, window: Window) -> None:
    run.figures.lost_intervals += 1
    run.log.error("Lost interval %s: its events were not read. TAP keeps 7 days only", window)
