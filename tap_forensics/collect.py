"""The run on one page: plan → windows → backlog and events → forensics → objects → state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta

from google.cloud.storage import Client

from tap_forensics.clock import Clock, Deadline, every, iso
from tap_forensics.config.settings import Settings
from tap_forensics.context import RunContext
from tap_forensics.discovery.discover import discover
from tap_forensics.discovery.event_writer import EventDelivery, open_events
from tap_forensics.discovery.window_reader import Discovery
from tap_forensics.errors import CollectorError, LeaseHeld, LeaseLost, RateLimited, TryLater
from tap_forensics.forensics.backlog import drain
from tap_forensics.forensics.evidence_writer import recover_batches
from tap_forensics.planning import count_suspects, plan_run
from tap_forensics.stats import Figures
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.open_items import read_until
from tap_forensics.storage.state_store import HeldState, state_place
from tap_forensics.tap.client import Tap
from tap_forensics.tap.quota import FORENSICS, SIEM, Ledger
from tap_forensics.tap.windows import Window

# Of the run's budget: kept for the last batch and the last commit; and the most that reading windows may use.
_RESERVE_SECONDS = 30
_RESERVE_SHARE = 0.25
_DISCOVERY_SHARE = 0.6
_HEARTBEAT_SECONDS = 0.5


def collect(
    settings: Settings,
    open_client: Callable[[], Client],
    clock: Clock,
    log: logging.Logger,
    figures: Figures | None = None,
    again: Window | None = None,
) -> Figures:
    """One run, to its final log line. Raises a `RunFailed` after that line if the run failed, and `LeaseHeld`
    if another run holds the lease and seems to have died.

    `figures`, if given, are those that fill while the run works. `again`: a window to be read once more; it
    is opened before anything is asked, and so outlives this run.
    """
    figures = Figures() if figures is None else figures
    begun = clock.monotonic()
    figures.tenant = settings.tenant or ""
    try:
        with closing(open_client()) as client:
            budget = Deadline.after(clock, settings.run_budget_seconds)
            bucket = Bucket(client, settings.gcs_bucket, budget.remaining_seconds)
            held = HeldState(bucket, state_place(settings), clock, settings.lease_seconds)
            _run(RunContext(settings, log, figures, held, bucket, _log_waits(log)), budget, again)
    except LeaseHeld as busy:
        figures.outcome, figures.reason = "busy", str(busy)
        log.log(logging.WARNING if busy.missed_renewal else logging.INFO, "Nothing to do: %s", busy)
        if busy.missed_renewal:
            raise
    except CollectorError as error:
        figures.reason = str(error)
        log.error("%s", error)
        raise
    finally:
        figures.seconds = round(clock.monotonic() - begun, 3)
        level = logging.ERROR if figures.outcome == "failed" else logging.INFO
        log.log(level, "Run %s", figures.outcome, extra={"fields": {"run": figures.as_fields()}})
    return figures


def _run(run: RunContext, budget: Deadline, again: Window | None) -> None:
    figures, log, held = run.figures, run.log, run.held
    _log_place(run)
    held.acquire(lambda state, died: plan_run(run, state, died, again))
    try:
        with _lease_released(run):
            if held.new_here:
                # So that it can be seen later that the published function ran once more.
                _hand_over(run)
            stops = _work(run, budget)
            _hand_over(run)
    finally:
        _count_state(run)
    figures.outcome = "incomplete" if stops or _left(run) else "complete"
    figures.reason = "; ".join(map(str, stops))
    log.info("Saved state: last_event_time=%s", iso(held.cursor) if held.cursor else None)
    processed = figures.threats_fetched + figures.threats_skipped
    if processed:
        log.info("Successfully processed forensics for %d threats", processed)


def _work(run: RunContext, budget: Deadline) -> list[TryLater]:
    """Everything under the lease; returns what left work for the next run."""
    settings, held = run.settings, run.held
    reserve = min(_RESERVE_SECONDS, settings.run_budget_seconds * _RESERVE_SHARE)
    deadline = Deadline(run.clock, budget.at_seconds - reserve)
    ledger = held.keep_ledger(
        {SIEM: settings.tap_siem_daily_limit, FORENSICS: settings.tap_forensics_daily_limit}
    )
    run.figures.run_id = held.lease.run_id
    # Until it is known what a dead run wrote, its lease must not be released.
    held.in_doubt = held.died is not None
    events = open_events(run) if settings.events_prefix else None
    if held.died:
        _take_over(run, events)
    with (
        Tap(settings, run.clock, deadline, ledger) as tap,
        _calls_counted(run, ledger),
        _memory_kept(run, events),
    ):
        until = Deadline.after(run.clock, deadline.remaining_seconds() * _DISCOVERY_SHARE)
        discovered = discover(Discovery(run, tap, until, events))
        if discovered:
            run.log.warning("Discovery ended early; the next run continues: %s", discovered)
        _log_if_nothing_found(run)
        fetched = drain(run, tap, deadline) if settings.forensics else None
    return [stop for stop in (discovered, fetched) if stop]


def _take_over(run: RunContext, events: EventDelivery | None) -> None:
    """What a run that died had written counts; what it had in flight is suspect."""
    found = recover_batches(run)
    found += events.recover() if events else 0
    run.log.warning("Taking over run %s, which died; %d finished objects found", run.held.lease.run_id, found)
    run.held.in_doubt = False
    count_suspects(run)


@contextmanager
def _memory_kept(run: RunContext, events: EventDelivery | None) -> Iterator[None]:
    """What was delivered is remembered before the lease is released, after an exception too."""
    try:
        yield
    except LeaseLost:
        raise
    except BaseException:
        try:
            if events:
                events.keep_memory()
        except CollectorError as error:
            run.log.warning("Could not save the event dedup index; it will be rebuilt: %s", error)
        raise
    if events:
        events.keep_memory()


@contextmanager
def _lease_released(run: RunContext) -> Iterator[None]:
    """Renews the lease meanwhile and releases it at every orderly end, by exception too."""
    stop = every(_HEARTBEAT_SECONDS, lambda: _renew(run))
    try:
        yield
    except LeaseLost:
        stop()
        raise
    except BaseException:
        stop()
        try:
            run.held.release()
        except CollectorError as error:
            run.log.warning("Could not release the lease; it will run out: %s", error)
        raise
    stop()
    run.held.release()


def _renew(run: RunContext) -> None:
    try:
        run.held.renew_if_due()
    except CollectorError as error:
        # The run's own next commit meets the same fault and decides.
        run.log.warning("Could not renew the lease: %s", error)


def _log_place(run: RunContext) -> None:
    run.log.info("The state is in gs://%s/%s", run.settings.gcs_bucket, run.held.place.name)
    if not run.settings.gcs_prefix:
        run.log.warning(
            "GCS_PREFIX is empty: a feed that reads the whole bucket ingests the state too; "
            "set GCS_PREFIX and let the feed read that folder"
        )


def _hand_over(run: RunContext) -> None:
    try:
        overwritten = run.held.write_handover()
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
    with run.held.changing() as state:
        all_read = not state.gaps
    if run.settings.forensics and all_read and not run.figures.threats_found:
        run.log.info("No threats found in the specified time window.")


def _left(run: RunContext) -> bool:
    """Whether anything stays open for the next run."""
    return bool(run.figures.gaps or (run.settings.forensics and run.figures.threats_left))


def _count_state(run: RunContext) -> None:
    """In a run that failed, too: the lag is what an alert looks at then."""
    now, figures = run.clock.now(), run.figures
    with suppress(LeaseLost), run.held.changing() as state:
        figures.threats_left = len(state.backlog)
        figures.gaps = len(state.gaps)
        closed = figures.threats_fetched + figures.threats_skipped + figures.threats_given_up
        figures.backlog_growth = figures.threats_new - closed
        oldest = min((t.first_seen for t in state.backlog.values()), default=now)
        figures.oldest_backlog_seconds = max(0, _seconds(now - oldest))
        figures.oldest_gap_seconds = max((_seconds(now - gap.start) for gap in state.gaps), default=0)
        if until := read_until(state):
            figures.cursor_lag_seconds = _seconds(now - until)


def _seconds(span: timedelta) -> int:
    return int(span / timedelta(seconds=1))


@contextmanager
def _calls_counted(run: RunContext, ledger: Ledger) -> Iterator[None]:
    """Now and then while the run works, for whoever watches, and at its end."""
    figures = run.figures

    def count() -> None:
        now = run.clock.now()
        figures.siem_calls, figures.siem_429s = ledger.made[SIEM], ledger.refused[SIEM]
        figures.forensics_calls, figures.forensics_429s = ledger.made[FORENSICS], ledger.refused[FORENSICS]
        figures.siem_calls_left = ledger.left(SIEM, now)
        figures.forensics_calls_left = ledger.left(FORENSICS, now)

    count()
    stop = every(_HEARTBEAT_SECONDS, count)
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
