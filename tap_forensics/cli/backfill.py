"""`tap-forensics backfill`: records a past interval as a gap in the state, which ordinary runs then read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import click
from google.cloud.storage import Client

from tap_forensics.cli.context import CommandContext, Exit, cli_command, wait_option
from tap_forensics.cli.moments import Moment
from tap_forensics.cli.progress import watched_run
from tap_forensics.cli.run import summary
from tap_forensics.cli.terminal import lasting, print_fields, safe_text
from tap_forensics.clock import Deadline, floor_to_second, iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import LeaseHeld
from tap_forensics.stats import RunStats
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.open_items import reopen
from tap_forensics.storage.state import State
from tap_forensics.storage.state_store import FoundState, find_state
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota, daily_limits
from tap_forensics.tap.windows import Window, oldest_start, pad, plan_windows

_BUCKET_SECONDS = 30
# What starts at the very edge would be older than 7 days before it is requested.
_EDGE_MARGIN = timedelta(minutes=2)
# Part of the SIEM limit: of 1,800 calls an hourly schedule needs 48 a day, a schedule of 5 minutes about 575.
_SCHEDULE_SHARE = 0.35
_LOOK_AGAIN_SECONDS = 1


@dataclass
class Plan:
    """What a backfill will do; the fields are those of `--json`.

    `window` is None with `--resume`. `runs` has the figures of each run; `gap_seconds_left` is what is
    still to be read.
    """

    window: Window | None
    notes: list[str]
    siem_calls_needed: int
    siem_calls_left: int | None
    forensics_calls_left: int | None
    backlog: int
    gap_seconds_left: int
    done: bool = False
    reason: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)

    def as_fields(self) -> dict[str, Any]:
        window = {"start": self.window.start, "end": self.window.end} if self.window else None
        return asdict(self) | {"window": window}


@click.command(
    epilog="""\b
Examples:
  tap-forensics backfill --from 2026-11-20T06:00Z --to 2026-11-20T18:00Z --dry-run
  tap-forensics backfill --resume
\b
--json: {"window": null | {"start", "end"}, "notes": [TEXT], "siem_calls_needed", "siem_calls_left",
  "forensics_calls_left", "backlog", "gap_seconds_left", "done", "reason", "runs": [FIGURES OF run]}
"""
)
@click.option("--from", "start", type=Moment(), help="Start of the interval (ISO 8601).")
@click.option("--to", "end", type=Moment(), help="End of the interval, at the latest the cursor.")
@click.option("--resume", is_flag=True, help="Continue with what is open in the state; add no interval.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and what it needs; change nothing.")
@wait_option("How long to wait for a run that is at work.")
@cli_command
def backfill(context: CommandContext, wait: float, dry_run: bool, **interval: Any) -> Exit:
    """Read a past interval within TAP's 7 days again: its threats, and its events with EVENTS_PREFIX.

    Records the interval in the state as a gap. Ordinary runs then read it, under the same lease as the
    scheduled ones. The cursor does not move. If this command is interrupted, any later run, scheduled or
    not, continues from the state.

    A threat collected within DEDUP_HOURS is not fetched again; one collected earlier is fetched and written
    again. Events that the event dedup index still contains are not written again.

    The threats join the backlog with the same priorities as all others: if forensics calls are limited,
    newer threats may wait longer.
    """
    start, end = _asked(**interval)
    context = replace(context, lease_wait_seconds=wait)
    settings = context.settings()
    with context.storage(settings) as open_client:
        state = _found(context, settings, open_client).state
        plan = _plan(state, settings, context.clock.now(), start, end)
        plan.done = not (plan.gap_seconds_left or plan.backlog)
        _print_plan(context, settings, plan)
        _refuse_if_too_much(settings, plan)
        idle = dry_run or plan.done
        exit_code = Exit.GOOD if idle else _carry_out(context, settings, open_client, plan)
    if context.as_json:
        context.print_json(plan.as_fields())
    return exit_code


def _asked(
    start: datetime | None, end: datetime | None, resume: bool
) -> tuple[datetime | None, datetime | None]:
    """The interval of the command line; None twice with --resume."""
    if resume == bool(start or end) or bool(start) != bool(end):
        raise click.UsageError("give --from and --to, or only --resume")
    return start, end


def _found(context: CommandContext, settings: Settings, open_client: Callable[[], Client]) -> FoundState:
    with closing(open_client()) as client:
        bucket = Bucket(client, settings.bucket.name, lambda: _BUCKET_SECONDS)
        return find_state(bucket, state_location(settings), context.clock, settings.run.lease_seconds)


def _plan(
    state: State, settings: Settings, now: datetime, start: datetime | None, end: datetime | None
) -> Plan:
    notes: list[str] = []
    window = _interval(start, end, now, state.last_event_time, notes) if start and end else None
    if window:
        reopen(state, window, now)
    to_read = [gap.window() for gap in state.gaps]
    limits = daily_limits(settings.tap)
    quota = Quota(state.calls, limits)
    return Plan(
        window=window,
        notes=notes,
        siem_calls_needed=sum(len(plan_windows(w) or [pad(w)]) for w in to_read),
        siem_calls_left=quota.left(SIEM, now),
        forensics_calls_left=quota.left(FORENSICS, now),
        backlog=len(state.backlog),
        gap_seconds_left=sum(int((w.end - w.start).total_seconds()) for w in to_read),
    )


def _interval(
    start: datetime, end: datetime, now: datetime, cursor: datetime | None, notes: list[str]
) -> Window:
    """The part of the interval that can be read; `notes` get what was cut off.

    Raises click.UsageError if nothing can be read.
    """
    oldest = oldest_start(now) + _EDGE_MARGIN
    if cursor is None:
        raise click.UsageError(
            "nothing was collected yet: LOOKBACK_HOURS or SINCE_TIME decide where the first run starts"
        )
    if start >= end:
        raise click.UsageError(f"--from {iso(start)} is not before --to {iso(end)}")
    if start >= cursor:
        raise click.UsageError(
            f"--from {iso(start)} is not before the cursor, {iso(cursor)}: ordinary runs read from there on"
        )
    if end <= oldest:
        raise click.UsageError(
            f"--to {iso(end)} is too far back: TAP keeps 7 days, and answers from {iso(oldest)} on"
        )
    if start < oldest:
        notes.append(f"TAP keeps 7 days and has nothing before {iso(oldest)}: that part is left out")
    if end > cursor:
        notes.append(f"Ordinary runs read from the cursor, {iso(cursor)}, on: that part is left out")
    return Window(max(start, oldest), min(end, floor_to_second(cursor)))


def _print_plan(context: CommandContext, settings: Settings, plan: Plan) -> None:
    if context.as_json:
        return
    if plan.done:
        context.out.print(safe_text("Nothing is left to read: no gap, and no threat on the backlog."))
        return
    rows = [
        ("interval", str(plan.window) if plan.window else "what is open in the state"),
        ("to read", lasting(timedelta(seconds=plan.gap_seconds_left)) + _gaps_too(plan)),
        (
            "SIEM calls",
            f"{plan.siem_calls_needed} needed, and 1 or 2 per run; {_count(plan.siem_calls_left)}",
        ),
        ("forensics calls", _forensics(settings, plan)),
    ]
    print_fields(context.out, "Backfill", [*rows, *(("note", note) for note in plan.notes)])


def _gaps_too(plan: Plan) -> str:
    alone = plan.window and plan.window.end - plan.window.start == timedelta(seconds=plan.gap_seconds_left)
    return "" if alone else ", including the gaps of earlier runs"


def _forensics(settings: Settings, plan: Plan) -> str:
    if not settings.forensics.enabled:
        return "none (FORENSICS=off)"
    left = _count(plan.forensics_calls_left)
    return f"one for each threat not collected yet, {plan.backlog:,} on the backlog; {left}"


def _count(left: int | None) -> str:
    return "no limit set" if left is None else f"{left:,} left"


def _refuse_if_too_much(settings: Settings, plan: Plan) -> None:
    """The scheduled runs must have calls left during a backfill."""
    kept = int(settings.tap.siem_daily_limit * _SCHEDULE_SHARE)
    left = plan.siem_calls_left
    if plan.window and left is not None and plan.siem_calls_needed > left - kept:
        raise click.UsageError(
            f"{plan.siem_calls_needed} SIEM calls are needed and {left} are left, of which {kept} are "
            "reserved for the scheduled runs: give a shorter interval, or wait (tap-forensics status shows "
            "when calls come back)"
        )


def _carry_out(
    context: CommandContext, settings: Settings, open_client: Callable[[], Client], plan: Plan
) -> Exit:
    try:
        exit_code = _drain(context, settings, open_client, plan)
    except KeyboardInterrupt:
        plan.reason = "interrupted"
        context.print_status(
            "Interrupted. Any later run continues from the state; so does: tap-forensics backfill --resume"
        )
        return Exit.INTERRUPTED
    if not context.as_json:
        title = "Backfill done" if plan.done else "Not done yet; later runs continue from the state"
        print_fields(context.out, title, [("why", plan.reason)] if plan.reason else [])
    return exit_code


def _drain(
    context: CommandContext, settings: Settings, open_client: Callable[[], Client], plan: Plan
) -> Exit:
    """Ordinary runs, one after the other, until nothing is left or one makes no progress."""
    again = plan.window
    while True:
        if not _lease_free(context, settings, open_client):
            plan.reason = "another run holds the lease"
            return Exit.BUSY
        try:
            stats = watched_run(context, settings, open_client, RunStats(), again)
        except LeaseHeld:
            continue
        if stats.outcome == "busy":
            continue
        again = None
        progress = _take_stock(context, settings, open_client, plan, stats)
        if plan.done:
            return Exit.GOOD
        if not progress:
            return Exit.INCOMPLETE


def _lease_free(context: CommandContext, settings: Settings, open_client: Callable[[], Client]) -> bool:
    """Waits for a run that is at work. Returns False if it does not end in time."""
    deadline = Deadline.after(context.clock, context.lease_wait_seconds)
    announced = False
    while (found := _found(context, settings, open_client)).live:
        if deadline.passed():
            return False
        if not announced:
            context.print_status(
                f"Run {found.state.lease and found.state.lease.run_id} is at work; waiting until it ends."
            )
        announced = True
        context.clock.sleep(_LOOK_AGAIN_SECONDS)
    return True


def _take_stock(
    context: CommandContext,
    settings: Settings,
    open_client: Callable[[], Client],
    plan: Plan,
    stats: RunStats,
) -> bool:
    """Notes what is left after a run. Returns whether the run made progress."""
    plan.runs.append(stats.as_fields())
    if not context.as_json:
        print_fields(context.out, f"Run {stats.run_id}: {stats.outcome}", summary(stats))
    state = _found(context, settings, open_client).state
    before, plan.backlog = plan.gap_seconds_left, len(state.backlog)
    plan.gap_seconds_left = sum(int((gap.end - gap.start).total_seconds()) for gap in state.gaps)
    waits = settings.forensics.enabled and plan.backlog
    plan.done = not plan.gap_seconds_left and not waits
    plan.reason = "" if plan.done else stats.reason or "a later run tries again"
    settled = stats.threats_fetched + stats.threats_skipped + stats.threats_given_up
    return plan.gap_seconds_left < before or settled > 0
