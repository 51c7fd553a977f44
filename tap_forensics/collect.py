"""The run on one page: plan → windows → backlog and events → forensics → objects → state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
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
from tap_forensics.errors import CollectorError, LeaseHeld, LeaseLost, RateLimited, Retryable
from tap_forensics.forensics.backlog import drain
from tap_forensics.forensics.evidence_writer import recover_objects
from tap_forensics.planning import count_suspects, plan_run
from tap_forensics.stats import RunStats
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.numbered_objects import BATCH_BYTES
from tap_forensics.storage.open_items import read_until
from tap_forensics.storage.state_store import StateStore
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota
from tap_forensics.tap.windows import Window

# Of the run's budget: kept for the last batch and the last commit; and the most that reading windows may use.
_RESERVE_SECONDS = 30
_RESERVE_SHARE = 0.25
_DISCOVERY_SHARE = 0.6
_HEARTBEAT_SECONDS = 0.5


@dataclass(frozen=True)
class RunOptions:
    """`stats` fill while the run works. `again`: a window to be read once more; it is opened before anything
    is asked, and so outlives this run. `batch_bytes`: as in `RunContext`.
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
    """One run, to its final log line. Raises a `RunFailed` after that line if the run failed, and `LeaseHeld`
    if another run holds the lease and seems to have died.

    Returns the stats of `options`.
    """
    options = options or RunOptions()
    stats = options.stats
    begun = clock.monotonic()
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
        log.error("%s", error)
        raise
    finally:
        stats.seconds = round(clock.monotonic() - begun, 3)
        level = logging.ERROR if stats.outcome == "failed" else logging.INFO
        log.log(level, "Run %s", stats.outcome, extra={"fields": {"run": stats.as_fields()}})
    return stats


def _run(run: RunContext, budget: Deadline, again: Window | None) -> None:
    stats, log, store = run.stats, run.log, run.store
    _log_place(run)
    store.acquire(lambda state, dead_lease: plan_run(run, state, dead_lease, again))
    try:
        with _lease_released(run):
            if store.is_new_here:
                # So that it can be seen later that the published function ran once more.
                _hand_over(run)
            stops = _work(run, budget)
            _hand_over(run)
    finally:
        _count_state(run)
    stats.outcome = "incomplete" if stops or _left(run) else "complete"
    stats.reason = "; ".join(map(str, stops))
    log.info("Saved state: last_event_time=%s", iso(store.cursor) if store.cursor else None)
    processed = stats.threats_fetched + stats.threats_skipped
    if processed:
        log.info("Successfully processed forensics for %d threats", processed)


def _work(run: RunContext, budget: Deadline) -> list[Retryable]:
    """Everything under the lease; returns what left work for the next run."""
    settings, store = run.settings, run.store
    reserve = min(_RESERVE_SECONDS, settings.run.budget_seconds * _RESERVE_SHARE)
    deadline = Deadline(run.clock, budget.at_seconds - reserve)
    quota = store.attach_quota(
        {SIEM: settings.tap.siem_daily_limit, FORENSICS: settings.tap.forensics_daily_limit}
    )
    run.stats.run_id = store.lease.run_id
    # Until it is known what a dead run wrote, its lease must not be released.
    store.in_doubt = store.dead_lease is not None
    events = open_events(run) if settings.events.prefix else None
    if store.dead_lease:
        _take_over(run, events)
    with (
        TapClient(settings, run.clock, deadline, quota) as tap,
        _calls_counted(run, quota),
        _index_saved(run, events),
    ):
        until = Deadline.after(run.clock, deadline.remaining_seconds() * _DISCOVERY_SHARE)
        discovered = discover(Discovery(run, tap, until, events))
        if discovered:
            run.log.warning("Discovery ended early; the next run continues: %s", discovered)
        _log_if_nothing_found(run)
        fetched = drain(run, tap, deadline) if settings.forensics.enabled else None
    return [stop for stop in (discovered, fetched) if stop]


def _take_over(run: RunContext, events: EventWriter | None) -> None:
    """What a run that died had written counts; what it had in flight is suspect."""
    found = recover_objects(run)
    found += events.recover() if events else 0
    run.log.warning(
        "Taking over run %s, which died; %d finished objects found", run.store.lease.run_id, found
    )
    run.store.in_doubt = False
    count_suspects(run)


@contextmanager
def _index_saved(run: RunContext, events: EventWriter | None) -> Iterator[None]:
    """What was delivered is remembered before the lease is released, after an exception too."""
    try:
        yield
    except LeaseLost:
        raise
    except BaseException:
        try:
            if events:
                events.save_index()
        except CollectorError as error:
            run.log.warning("Could not save the event dedup index; it will be rebuilt: %s", error)
        raise
    if events:
        events.save_index()


@contextmanager
def _lease_released(run: RunContext) -> Iterator[None]:
    """Renews the lease meanwhile and releases it at every orderly end, by exception too."""
    stop = run_periodically(_HEARTBEAT_SECONDS, lambda: _renew(run))
    try:
        yield
    except LeaseLost:
        stop()
        raise
    except BaseException:
        stop()
        try:
            run.store.release()
        except CollectorError as error:
            run.log.warning("Could not release the lease; it will run out: %s", error)
        raise
    stop()
    run.store.release()


def _renew(run: RunContext) -> None:
    try:
        run.store.renew_if_due()
    except CollectorError as error:
        # The run's own next commit meets the same fault and decides.
        run.log.warning("Could not renew the lease: %s", error)


def _log_place(run: RunContext) -> None:
    run.log.info("The state is in gs://%s/%s", run.settings.bucket.name, run.store.location.name)
    if not run.settings.bucket.prefix:
        run.log.warning(
            "GCS_PREFIX is empty: a feed that reads the whole bucket ingests the state too; "
            "set GCS_PREFIX and let the feed read that folder"
        )


def _hand_over(run: RunContext) -> None:
    try:
        overwritten = run.store.write_legacy_state()
    except LeaseLost:
        raise
    except CollectorError as error:
        run.log.warning("Could not update the published function's state object: %s", error)
        return
    if overwritten:
        run.log.warning(
            "The published function has run since our last run: its state object was without our mark. "
            "Threats that it delivered may come twice"
        )


def _log_if_nothing_found(run: RunContext) -> None:
    with run.store.transaction() as state:
        all_read = not state.gaps
    if run.settings.forensics.enabled and all_read and not run.stats.threats_found:
        run.log.info("No threats found in the specified time window.")


def _left(run: RunContext) -> bool:
    """Whether anything stays open for the next run."""
    return bool(run.stats.gaps or (run.settings.forensics.enabled and run.stats.threats_left))


def _count_state(run: RunContext) -> None:
    """In a run that failed, too: the lag is what an alert looks at then."""
    now, stats = run.clock.now(), run.stats
    with suppress(LeaseLost), run.store.transaction() as state:
        stats.threats_left = len(state.backlog)
        stats.gaps = len(state.gaps)
        closed = stats.threats_fetched + stats.threats_skipped + stats.threats_given_up
        stats.backlog_growth = stats.threats_new - closed
        oldest = min((t.first_seen for t in state.backlog.values()), default=now)
        stats.oldest_backlog_seconds = max(0, _seconds(now - oldest))
        stats.oldest_gap_seconds = max((_seconds(now - gap.start) for gap in state.gaps), default=0)
        if until := read_until(state):
            stats.cursor_lag_seconds = _seconds(now - until)


def _seconds(span: timedelta) -> int:
    return int(span / timedelta(seconds=1))


@contextmanager
def _calls_counted(run: RunContext, quota: Quota) -> Iterator[None]:
    """Now and then while the run works, for whoever watches, and at its end."""
    stats = run.stats

    def count() -> None:
        now = run.clock.now()
        stats.siem_calls, stats.siem_429s = quota.made[SIEM], quota.refused[SIEM]
        stats.forensics_calls, stats.forensics_429s = quota.made[FORENSICS], quota.refused[FORENSICS]
        stats.siem_calls_left = quota.left(SIEM, now)
        stats.forensics_calls_left = quota.left(FORENSICS, now)

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
