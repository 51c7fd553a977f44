"""The run on one page: lease → gaps and windows → events and backlog → forensics → objects → state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta

from google.cloud.storage import Client

from tap_forensics.asking import Discovery
from tap_forensics.backlog import Fetching, work_off
from tap_forensics.bucket import Bucket
from tap_forensics.clock import Clock, Deadline, every, iso
from tap_forensics.delivery import recover_batches
from tap_forensics.discovery import discover
from tap_forensics.errors import CollectorError, LeaseLost, RateLimited, TryLater
from tap_forensics.event_delivery import EventDelivery, open_events
from tap_forensics.figures import Figures
from tap_forensics.held import HeldState, state_place
from tap_forensics.ledger import FORENSICS, SIEM, Ledger
from tap_forensics.settings import Settings
from tap_forensics.state import ask_again, forget
from tap_forensics.tap import Tap
from tap_forensics.windows import Window

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
    """One run, to its final log line. Raises a `RunFailed` after that line where the run failed.

    `figures`, where given, are those that fill while the run works. `again`: an interval to be read once
    more; it is recorded as a gap before anything is asked, and so outlives this run.
    """
    figures = Figures() if figures is None else figures
    begun = clock.monotonic()
    figures.tenant = settings.tenant or ""
    try:
        with closing(open_client()) as client:
            _run(settings, client, clock, log, figures, again)
    except CollectorError as error:
        figures.reason = str(error)
        log.error("%s", error)
        raise
    finally:
        figures.seconds = round(clock.monotonic() - begun, 3)
        level = logging.ERROR if figures.outcome == "failed" else logging.INFO
        log.log(level, "Run %s", figures.outcome, extra={"fields": {"run": figures.as_fields()}})
    return figures


def _run(
    settings: Settings,
    client: Client,
    clock: Clock,
    log: logging.Logger,
    figures: Figures,
    again: Window | None,
) -> None:
    budget = Deadline.after(clock, settings.run_budget_seconds)
    bucket = Bucket(client, settings.gcs_bucket, budget.remaining_seconds)
    held = HeldState(bucket, state_place(settings), clock, settings.lease_seconds)
    _say_where_the_state_is(settings, log)
    if not held.acquire():
        log.info("Another run is at work and holds the lease; this one has nothing to do")
        figures.outcome = "busy"
        return
    try:
        with _lease_given_back(held, log):
            ended_by = _work(settings, held, bucket, budget, log, figures, again)
    finally:
        _tell_state(held, clock, figures)
    left = figures.gaps or (settings.forensics and figures.threats_left)
    figures.outcome = "incomplete" if ended_by or left else "complete"
    figures.reason = "; ".join(map(str, ended_by))
    log.info("Saved state: last_event_time=%s", iso(held.cursor) if held.cursor else None)
    _hand_over(held, log)
    if figures.threats_fetched or figures.threats_skipped:
        processed = figures.threats_fetched + figures.threats_skipped
        log.info("Successfully processed forensics for %d threats", processed)


def _work(
    settings: Settings,
    held: HeldState,
    bucket: Bucket,
    budget: Deadline,
    log: logging.Logger,
    figures: Figures,
    again: Window | None,
) -> list[TryLater]:
    """Everything between taking the lease and giving it back; gives what left work for the next run."""
    clock = budget.clock
    reserve = min(_RESERVE_SECONDS, settings.run_budget_seconds * _RESERVE_SHARE)
    deadline = Deadline(clock, budget.at_seconds - reserve)
    ledger = held.keep_ledger(
        {SIEM: settings.tap_siem_daily_limit, FORENSICS: settings.tap_forensics_daily_limit}
    )
    waiting = _telling_of_waits(log)
    figures.run_id = held.lease.run_id
    # Until what a dead run wrote is known, its lease must not be given back.
    held.in_doubt = held.taken_over
    events = open_events(held, bucket, settings, clock, log, figures) if settings.events_prefix else None
    _pick_up(settings, held, bucket, events, clock, log)
    if again:
        _record(again, held, clock)
    with (
        Tap(settings, clock, deadline, ledger) as tap,
        _calls_counted(ledger, clock, figures),
        _memory_kept(events, log),
    ):
        until = Deadline.after(clock, deadline.remaining_seconds() * _DISCOVERY_SHARE)
        discovered = discover(Discovery(held, tap, settings, clock, until, log, figures, waiting, events))
        if settings.forensics and not figures.threats_found:
            log.info("No threats found in the specified time window.")
        if discovered:
            log.warning("Discovery ended early; the next run goes on from there: %s", discovered)
        held.commit_if_due()
        if not settings.forensics:
            return [discovered] if discovered else []
        fetched = work_off(Fetching(held, tap, bucket, settings, clock, deadline, log, figures, waiting))
    return [stop for stop in (discovered, fetched) if stop]


def _pick_up(
    settings: Settings,
    held: HeldState,
    bucket: Bucket,
    events: EventDelivery | None,
    clock: Clock,
    log: logging.Logger,
) -> None:
    """What a run that died had written counts; what was collected long ago is forgotten."""
    if held.taken_over:
        found = recover_batches(held, bucket, settings.gcs_prefix, clock)
        found += events.recover() if events else 0
        log.warning("Taking over run %s, which died; %d finished objects found", held.lease.run_id, found)
    held.in_doubt = False
    with held.changing() as state:
        forget(state, clock.now(), settings.dedup_hours)


def _record(again: Window, held: HeldState, clock: Clock) -> None:
    with held.changing() as state:
        ask_again(state, again, clock.now())
    held.commit()


@contextmanager
def _memory_kept(events: EventDelivery | None, log: logging.Logger) -> Iterator[None]:
    """What was delivered is remembered before the lease is given back, after an exception too."""
    try:
        yield
    except LeaseLost:
        raise
    except BaseException:
        try:
            if events:
                events.keep_memory()
        except CollectorError as error:
            log.warning("The memory of delivered events could not be kept; it will be made anew: %s", error)
        raise
    if events:
        events.keep_memory()


@contextmanager
def _lease_given_back(held: HeldState, log: logging.Logger) -> Iterator[None]:
    """Keeps the lease alive meanwhile and gives it back at every orderly end, by exception too."""
    stop = every(_HEARTBEAT_SECONDS, lambda: _keep_alive(held, log))
    try:
        yield
    except LeaseLost:
        stop()
        raise
    except BaseException:
        stop()
        try:
            held.release()
        except CollectorError as error:
            log.warning("The lease could not be given back and will run out: %s", error)
        raise
    stop()
    held.release()


def _keep_alive(held: HeldState, log: logging.Logger) -> None:
    try:
        held.renew_if_due()
    except CollectorError as error:
        # The run's own next commit meets the same fault and decides.
        log.warning("The lease could not be renewed: %s", error)


def _say_where_the_state_is(settings: Settings, log: logging.Logger) -> None:
    place = state_place(settings)
    log.info("The state is in gs://%s/%s", settings.gcs_bucket, place.name)
    if not settings.gcs_prefix:
        log.warning(
            "GCS_PREFIX is empty: a feed that reads the whole bucket ingests the state too; "
            "set GCS_PREFIX and let the feed read that folder"
        )


def _hand_over(held: HeldState, log: logging.Logger) -> None:
    try:
        held.write_handover()
    except CollectorError as error:
        log.warning("The published function's state object was not brought up to date: %s", error)


def _tell_state(held: HeldState, clock: Clock, figures: Figures) -> None:
    """A run that failed tells it too: the cursor's lag is what an alert looks at then."""
    now = clock.now()
    with suppress(LeaseLost), held.changing() as state:
        figures.threats_left = len(state.backlog)
        figures.gaps = len(state.gaps)
        worked_off = figures.threats_fetched + figures.threats_skipped + figures.threats_given_up
        figures.backlog_growth = figures.threats_new - worked_off
        oldest = min((t.first_seen for t in state.backlog.values()), default=now)
        figures.oldest_backlog_seconds = max(0, _seconds(now - oldest))
        figures.oldest_gap_seconds = max((_seconds(now - gap.start) for gap in state.gaps), default=0)
        if state.last_event_time:
            figures.cursor_lag_seconds = _seconds(now - state.last_event_time)


def _seconds(span: timedelta) -> int:
    return int(span / timedelta(seconds=1))


@contextmanager
def _calls_counted(ledger: Ledger, clock: Clock, figures: Figures) -> Iterator[None]:
    """Now and then while the run works, for whoever watches, and at its end."""

    def count() -> None:
        now = clock.now()
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


def _telling_of_waits(log: logging.Logger) -> Callable[[Exception, float], None]:
    def tell(error: Exception, seconds: float) -> None:
        if isinstance(error, RateLimited):
            log.warning("Rate limited (429). Retrying after %ds...", round(seconds))
        else:
            log.warning("%s. Retrying after %.1fs...", error, seconds)

    return tell
