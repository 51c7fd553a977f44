"""One run on one page: plan → windows → backlog and events → forensics → objects → state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from google.cloud.storage import Client

from tap_forensics.clock import Clock, Deadline, iso, run_periodically
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.context import RunContext
from tap_forensics.discovery.discover import discover
from tap_forensics.discovery.event_writer import EventWriter, open_events
from tap_forensics.discovery.window_reader import Discovery
from tap_forensics.errors import (
    AuthenticationFailed,
    CollectorError,
    LeaseHeld,
    LeaseLost,
    RateLimited,
    Retryable,
)
from tap_forensics.forensics.backlog import drain
from tap_forensics.forensics.evidence_writer import recover_objects
from tap_forensics.log import log_failure
from tap_forensics.planning import count_suspects, plan_run
from tap_forensics.stats import RunStats
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.numbered_objects import BATCH_BYTES
from tap_forensics.storage.open_items import is_covered, read_until
from tap_forensics.storage.state_store import StateStore
from tap_forensics.summaries.fetch import fetch_summaries
from tap_forensics.summaries.summary_writer import recover_summaries
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import (
    CAMPAIGN_FORENSICS,
    FORENSICS,
    FORENSICS_POOLS,
    SIEM,
    SUMMARIES,
    THREAT_FORENSICS,
    Quota,
    daily_limits,
)
from tap_forensics.tap.windows import Window

# The part of a run's time that is reserved for the last batch and the last commit.
_RESERVE_SECONDS = 30
_RESERVE_SHARE = 0.25
# The part of the rest that discovery may use.
_DISCOVERY_SHARE = 0.6
# The part of what is left then that threat summaries may use.
_SUMMARY_SHARE = 0.3
_HEARTBEAT_SECONDS = 0.5


@dataclass(frozen=True)
class RunOptions:
    """`stats` are updated while the run works. `batch_bytes`: as in `RunContext`.

    `again` is a window to read once more. The first commit opens it, so it stays open if this run fails.
    """

    stats: RunStats = field(default_factory=RunStats)
    again: Window | None = None
    batch_bytes: int = BATCH_BYTES


def collect(
    settings: Settings,
    open_client: Callable[[], Client],
    clock: Clock,
    log: logging.Logger,
    options: RunOptions | None = None,
) -> RunStats:
    """One run, including its final log line. Returns the stats of `options`.

    After that line it raises `RunFailed` if the run failed, or `LeaseHeld` if another run holds the lease
    and has probably died.
    """
    options = options or RunOptions()
    stats = options.stats
    started_at = clock.monotonic()
    stats.tenant = settings.tenant or ""
    try:
        with closing(open_client()) as client:
            budget = Deadline.after(clock, settings.run.budget_seconds)
            bucket = Bucket(client, settings.bucket.name, budget.remaining_seconds)
            store = StateStore(bucket, state_location(settings), clock, settings.run.lease_seconds)
            run = RunContext(settings, log, stats, store, bucket, _log_waits(log), options.batch_bytes)
            _run(run, budget, options.again)
    except LeaseHeld as busy:
        stats.outcome, stats.reason = "busy", str(busy)
        log.log(logging.WARNING if busy.missed_renewal else logging.INFO, "Nothing to do: %s", busy)
        if busy.missed_renewal:
            raise
    except CollectorError as error:
        stats.reason = str(error)
        log_failure(log, error)
        raise
    finally:
        stats.seconds = round(clock.monotonic() - started_at, 3)
        level = logging.ERROR if stats.outcome == "failed" else logging.INFO
        log.log(level, "Run %s", stats.outcome, extra={"fields": {"run": stats.as_fields()}})
    return stats


def _run(run: RunContext, budget: Deadline, again: Window | None) -> None:
    stats, log, store = run.stats, run.log, run.store
    _log_state_location(run)
    store.acquire(lambda state, dead_lease: plan_run(run, state, dead_lease, again))
    try:
        with _at_end(run, store.release, "Could not release the lease; it will expire: %s"), _renewals(run):
            if store.is_new_here:
                # The mark in this object shows later whether the published function has run again.
                _write_legacy_state(run)
            stop_reasons = _work(run, budget)
            _write_legacy_state(run)
    finally:
        _count_state(run)
    stats.outcome = "incomplete" if stop_reasons or _has_open_items(run) else "complete"
    stats.reason = "; ".join(map(str, stop_reasons))
    log.info("Saved state: last_event_time=%s", iso(store.cursor) if store.cursor else None)
    processed = stats.threats_fetched + stats.threats_skipped
    if processed:
        log.info("Successfully processed forensics for %d threats", processed)


def _work(run: RunContext, budget: Deadline) -> list[Retryable]:
    """Everything that needs the lease. Returns why discovery and forensics ended early, if they did."""
    settings, store = run.settings, run.store
    reserve = min(_RESERVE_SECONDS, settings.run.budget_seconds * _RESERVE_SHARE)
    deadline = Deadline(run.clock, budget.at_seconds - reserve)
    quota = store.attach_quota(daily_limits(settings.tap))
    run.stats.run_id = store.lease.run_id
    # A dead run's lease must not be released before its objects are counted.
    store.in_doubt = store.dead_lease is not None
    events = open_events(run) if settings.events.prefix else None
    if store.dead_lease:
        _take_over(run, events)
    with (
        TapClient(settings, run.clock, deadline, quota) as client,
        _calls_counted(run, quota),
        _index_saved(run, events),
    ):
        discovery_deadline = Deadline.after(run.clock, deadline.remaining_seconds() * _DISCOVERY_SHARE)
        reasons = [discover(Discovery(run, client, discovery_deadline, events))]
        _log_if_nothing_found(run)
        reasons += _fetch(run, client, deadline)
    return [reason for reason in reasons if reason]


def _fetch(run: RunContext, client: TapClient, deadline: Deadline) -> list[Retryable | None]:
    """Threat summaries, then forensics. A principal that may not read summaries still gets its forensics."""
    reasons: list[Retryable | None] = []
    refused: AuthenticationFailed | None = None
    if run.settings.summaries.prefix is not None:
        summary_deadline = Deadline.after(run.clock, deadline.remaining_seconds() * _SUMMARY_SHARE)
        try:
            reasons.append(fetch_summaries(run, client, summary_deadline))
        except AuthenticationFailed as error:
            # Logged now: what comes after it may fail in another way.
            run.log.warning("Threat summaries were refused: %s", error)
            refused = error
    if run.settings.forensics.enabled:
        reasons.append(drain(run, client, deadline))
    if refused:
        raise refused
    return reasons


def _take_over(run: RunContext, events: EventWriter | None) -> None:
    """Counts what the dead run has written; what it had in flight is suspect."""
    found = recover_objects(run) + (events.recover() if events else 0)
    found += recover_summaries(run) if run.settings.summaries.prefix is not None else 0
    run.log.warning(
        "Taking over run %s, which died; %d finished objects found", run.store.lease.run_id, found
    )
    run.store.in_doubt = False
    count_suspects(run)


@contextmanager
def _at_end(run: RunContext, action: Callable[[], None], warning: str) -> Iterator[None]:
    """Calls `action` at the end, also after an exception; then its own failure is only a `warning`.

    After a lost lease it is not called: the state belongs to another run.
    """
    try:
        yield
    except LeaseLost:
        raise
    except BaseException:
        try:
            action()
        except CollectorError as error:
            run.log.warning(warning, error)
        raise
    action()


def _index_saved(run: RunContext, events: EventWriter | None) -> AbstractContextManager[None]:
    """Saves the event dedup index, which must happen before the lease is released."""
    warning = "Could not save the event dedup index; it will be rebuilt: %s"
    return _at_end(run, events.save_index, warning) if events else nullcontext()


@contextmanager
def _renewals(run: RunContext) -> Iterator[None]:
    """Renews the lease while the run works."""
    stop = run_periodically(_HEARTBEAT_SECONDS, lambda: _renew(run))
    try:
        yield
    finally:
        stop()


def _renew(run: RunContext) -> None:
    try:
        run.store.renew_if_due()
    except CollectorError as error:
        # The run's own next commit has the same problem and decides.
        run.log.warning("Could not renew the lease; the next commit tries again: %s", error)


def _log_state_location(run: RunContext) -> None:
    run.log.info("The state is in gs://%s/%s", run.settings.bucket.name, run.store.location.name)
    if not run.settings.bucket.prefix:
        run.log.warning(
            "GCS_PREFIX is empty: a feed that reads the whole bucket ingests the state too; "
            "set GCS_PREFIX and let the feed read that folder"
        )


def _write_legacy_state(run: RunContext) -> None:
    try:
        overwritten = run.store.write_legacy_state()
    except LeaseLost:
        raise
    except CollectorError as error:
        run.log.warning(
            "Could not update the published function's state object; the next run will retry: %s", error
        )
        return
    if overwritten:
        run.log.warning(
            "The published function has run since our last run: it has overwritten its state object. "
            "Threats that it delivered may be delivered twice"
        )


def _log_if_nothing_found(run: RunContext) -> None:
    with run.store.transaction() as state:
        all_read = not state.gaps
    if run.settings.forensics.enabled and all_read and not run.stats.threats_found:
        run.log.info("No threats found in the specified time window.")


def _has_open_items(run: RunContext) -> bool:
    """Whether there is work for the next run."""
    stats, settings = run.stats, run.settings
    threats = settings.forensics.enabled and stats.threats_left
    return bool(stats.gaps or threats or (settings.summaries.prefix is not None and stats.summaries_left))


def _count_state(run: RunContext) -> None:
    """Counts after a failed run too: alerts look at the lag then."""
    now, stats = run.clock.now(), run.stats
    with suppress(LeaseLost), run.store.transaction() as state:
        stats.threats_left, stats.summaries_left = len(state.backlog), len(state.summaries)
        stats.threats_covered = sum(is_covered(state, threat) for threat in state.backlog.values())
        stats.threats_uncovered = stats.threats_left - stats.threats_covered
        stats.gaps = len(state.gaps)
        closed = stats.threats_fetched + stats.threats_skipped + stats.threats_given_up
        stats.backlog_growth = stats.threats_new - closed
        oldest = min((threat.first_seen for threat in state.backlog.values()), default=now)
        stats.oldest_backlog_seconds = max(0, _seconds(now - oldest))
        stats.oldest_gap_seconds = max((_seconds(now - gap.start) for gap in state.gaps), default=0)
        if until := read_until(state):
            stats.cursor_lag_seconds = _seconds(now - until)


def _seconds(duration: timedelta) -> int:
    return int(duration / timedelta(seconds=1))


@contextmanager
def _calls_counted(run: RunContext, quota: Quota) -> Iterator[None]:
    """Updates the call counts while the run works, for a live display, and at its end."""
    stats = run.stats

    def count() -> None:
        now = run.clock.now()
        made, refused = quota.made, quota.refused
        stats.siem_calls, stats.siem_429s = made[SIEM], refused[SIEM]
        stats.siem_calls_left = quota.left(SIEM, now)
        stats.forensics_calls = sum(made[pool] for pool in FORENSICS_POOLS)
        stats.forensics_429s = sum(refused[pool] for pool in FORENSICS_POOLS)
        stats.forensics_calls_left = quota.left(FORENSICS, now)
        stats.threat_forensics_calls = made[THREAT_FORENSICS]
        stats.threat_forensics_calls_left = quota.left(THREAT_FORENSICS, now)
        stats.campaign_forensics_calls = made[CAMPAIGN_FORENSICS]
        stats.campaign_forensics_calls_left = quota.left(CAMPAIGN_FORENSICS, now)
        stats.summary_calls, stats.summary_429s = made[SUMMARIES], refused[SUMMARIES]

    count()
    stop = run_periodically(_HEARTBEAT_SECONDS, count)
    try:
        yield
    finally:
        stop()
        count()


def _log_waits(log: logging.Logger) -> Callable[[Exception, float], None]:
    def before_sleep(error: Exception, seconds: float) -> None:
        if isinstance(error, RateLimited):
            log.warning("Rate limited (429). Retrying after %ds...", round(seconds))
        else:
            log.warning("%s. Retrying after %.1fs...", error, seconds)

    return before_sleep
