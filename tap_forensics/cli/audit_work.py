"""The work of `tap-forensics audit`: its plan, the calls it may make, and its steps in their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import click
from google.cloud.storage import Client

from tap_forensics.audit.ask import ask_for_reports
from tap_forensics.audit.comparison import Compared, Knowledge, compare, settle_doubtful
from tap_forensics.audit.lines import BucketLines, Rules
from tap_forensics.audit.shown import Reader, Shown, audit_windows
from tap_forensics.cli.activity import Say
from tap_forensics.cli.audit_bucket import FeedReading, lifecycle_sign, read_feed
from tap_forensics.cli.objects import evidence_feed, feeds
from tap_forensics.cli.terminal import many
from tap_forensics.clock import Clock, Deadline, floor_to_second, iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.discovery import event_writer
from tap_forensics.discovery.event_writer import index_name
from tap_forensics.forensics import evidence_writer
from tap_forensics.storage import event_dedup
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.state import State, run_time
from tap_forensics.storage.state_store import FoundState, find_state
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import FORENSICS, SIEM, PoolStatus, Quota, daily_limits
from tap_forensics.tap.windows import MIN_WINDOW, Window, oldest_start

_BUCKET_SECONDS = 60
# What starts at the very edge would be older than 7 days before it is requested.
_EDGE_MARGIN = timedelta(minutes=10)
# The bucket's clock and that of a run may differ.
_CLOCK_MARGIN = timedelta(minutes=5)
# Part of the SIEM limit that stays for the scheduled runs, as for a backfill.
_SCHEDULE_SHARE = 0.35
# Of the forensics calls that are left; the number if no limit is set.
_FORENSICS_SHARE = 0.1
_FORENSICS_CALLS = 100


@dataclass(frozen=True)
class Wishes:
    """The options of the command that say what to compare, and what it may cost."""

    start: datetime
    end: datetime | None
    max_calls: int | None
    forensics_calls: int | None
    max_seconds: float


@dataclass(frozen=True)
class Plan:
    """What is read and what it needs. `siem_kept` of the calls that are left are for the scheduled runs."""

    interval: Window
    windows: list[Window]
    notes: list[str]
    siem_left: int
    siem_kept: int
    siem_allowed: int
    forensics_left: int | None
    forensics_allowed: int

    def refusal(self) -> str:
        """Why the audit cannot be done; empty if it can."""
        needed = len(self.windows)
        if needed <= self.siem_allowed:
            return ""
        return (
            f"{many(needed, 'SIEM call')} needed, and {self.siem_allowed:,} allowed: give a shorter "
            "interval, or wait (tap-forensics status shows when calls come back)"
        )


@dataclass
class Audit:
    """What the steps share, and the result."""

    settings: Settings
    client: Client
    bucket: Bucket
    clock: Clock
    plan: Plan
    say: Say
    shown: Shown
    lines: BucketLines
    feeds: list[FeedReading]
    compared: Compared = field(default_factory=Compared)
    calls: dict[str, int] = field(default_factory=dict)


def find(settings: Settings, client: Client, clock: Clock) -> tuple[Bucket, FoundState]:
    """Raises as `find_state`."""
    bucket = Bucket(client, settings.bucket.name, lambda: _BUCKET_SECONDS)
    return bucket, find_state(bucket, state_location(settings), clock, settings.run.lease_seconds)


def make_plan(found: FoundState, settings: Settings, wishes: Wishes) -> Plan:
    """Raises `click.UsageError` if nothing of the interval can be compared."""
    notes: list[str] = []
    now = found.clock.now()
    interval = _interval(found.state, settings, now, wishes, notes)
    windows = audit_windows(interval)
    quota = Quota(found.state.calls, daily_limits(settings.tap))
    left = quota.left(SIEM, now) or 0
    kept = int(settings.tap.siem_daily_limit * _SCHEDULE_SHARE)
    most = len(windows) * 2 if wishes.max_calls is None else wishes.max_calls
    return Plan(
        interval,
        windows,
        notes,
        left,
        kept,
        max(0, min(left - kept, most)),
        quota.left(FORENSICS, now),
        _forensics_allowed(quota, settings, now, wishes, len(windows)),
    )


def _interval(state: State, settings: Settings, now: datetime, wishes: Wishes, notes: list[str]) -> Window:
    cursor, oldest = state.last_event_time, oldest_start(now) + _EDGE_MARGIN
    if cursor is None:
        raise click.UsageError("nothing was collected yet: there is no state to compare with")
    start = floor_to_second(wishes.start)
    end = wishes.end or cursor - timedelta(minutes=settings.windows.overlap_minutes)
    if end > cursor:
        notes.append(f"Runs have read up to the cursor, {iso(cursor)}: what is later is left out")
    if start < oldest:
        notes.append(f"TAP keeps 7 days and has nothing before {iso(oldest)}: that part is left out")
    interval = Window(max(start, oldest), floor_to_second(min(end, cursor)))
    if not interval.is_long_enough():
        least = f"{MIN_WINDOW / timedelta(seconds=1):.0f} s"
        raise click.UsageError(
            f"of {iso(start)}/{iso(end)} less than {least} can be compared: TAP answers from "
            f"{iso(oldest)} on, and runs have read up to {iso(cursor)}"
        )
    return interval


def _forensics_allowed(quota: Quota, settings: Settings, now: datetime, wishes: Wishes, windows: int) -> int:
    if not settings.forensics.enabled or quota.status(FORENSICS, now) is PoolStatus.BLOCKED:
        return 0
    left = quota.left(FORENSICS, now)
    default = _FORENSICS_CALLS if left is None else int(left * _FORENSICS_SHARE)
    wanted = default if wishes.forensics_calls is None else wishes.forensics_calls
    allowed = [wanted, *([] if left is None else [left])]
    if wishes.max_calls is not None:
        allowed.append(wishes.max_calls - windows)
    return max(0, min(allowed))


def new_audit(
    settings: Settings, client: Client, found: tuple[Bucket, FoundState], plan: Plan, say: Say
) -> Audit:
    bucket, at_start = found
    dedup = timedelta(hours=settings.forensics.dedup_hours)
    rules = Rules(dedup, settings.forensics.campaign_reports == "once")
    evidence = evidence_feed(settings)
    wanted = [feed for feed in feeds(settings) if feed != evidence or settings.forensics.enabled]
    # A threat of the interval may have been collected up to DEDUP_HOURS earlier, and any time later.
    since = plan.interval.start - _CLOCK_MARGIN
    readings = [
        FeedReading(feed, since - dedup if feed == evidence else since, feed != evidence) for feed in wanted
    ]
    return Audit(
        settings,
        client,
        bucket,
        at_start.clock,
        plan,
        say,
        Shown(plan.windows),
        BucketLines(plan.interval, rules),
        readings,
    )


def carry_out(audit: Audit, max_seconds: float) -> None:
    """The order counts: what a run collects during the audit must not look as if it were missing.

    The state is read after TAP, and the bucket once more after the state: what the state calls collected was
    written before. Raises `RunFailed` or `Undecidable`.
    """
    _read_bucket(audit)
    deadline = Deadline.after(audit.clock, max_seconds)
    quota = Quota({}, {SIEM: audit.plan.siem_allowed, FORENSICS: audit.plan.forensics_allowed})
    with TapClient(audit.settings, audit.clock, deadline, quota) as tap:
        for done in _reader(audit, tap, deadline).read_all(audit.shown, audit.lines):
            audit.say(f"Reading window {done:,} of {many(len(audit.plan.windows), 'window')} from TAP")
        known = _knowledge(audit)
        _read_bucket(audit)
        audit.shown.settle(audit.lines)
        audit.compared = compare(audit.shown, audit.lines, known)
        answers = dict(_ask(audit, tap, deadline))
    audit.calls = dict(quota.made)
    settle_doubtful(audit.compared, answers, audit.shown, known)


def _read_bucket(audit: Audit) -> None:
    for reading in audit.feeds:
        read_feed(audit.client, audit.bucket.name, reading, audit.lines, audit.say)


def _reader(audit: Audit, tap: TapClient, deadline: Deadline) -> Reader:
    of_threats = audit.settings.forensics.enabled
    of_events = audit.settings.events.prefix is not None
    return Reader(tap, deadline, of_threats, of_events, lambda error, _: audit.say(f"Waiting: {error}"))


def _knowledge(audit: Audit) -> Knowledge:
    _, found = find(audit.settings, audit.client, audit.clock)
    state, cursor = found.state, found.state.last_event_time
    overlap = timedelta(minutes=audit.settings.windows.overlap_minutes)
    delivered, indexed_from = _index(audit, state)
    signs = {reading.feed.stem: _sign_of_deletion(audit, reading, state) for reading in audit.feeds}
    return Knowledge(
        state,
        # After a reset there is no cursor: the next run reads again whatever it can.
        cursor - overlap if cursor else audit.plan.interval.end,
        delivered,
        indexed_from,
        signs.get(evidence_writer.STEM, ""),
        signs.get(event_writer.STEM, ""),
    )


def _index(audit: Audit, state: State) -> tuple[set[int], datetime | None]:
    """Which of the events without a line were delivered, and since when the index has every delivered one."""
    if audit.settings.events.prefix is None:
        return set(), None
    name = index_name(state_location(audit.settings))
    stored = audit.bucket.read(name)
    if stored is None:
        return set(), None
    index = event_dedup.decode(stored.data, f"gs://{audit.bucket.name}/{name}")
    delivered = audit.shown.missing.keys() & index.entries.keys()
    # Entries of an open gap are kept longer than others.
    return delivered, None if state.gaps else event_dedup.complete_from(index)


def _sign_of_deletion(audit: Audit, reading: FeedReading, state: State) -> str:
    if sign := reading.sign_of_deletion():
        return sign
    ran = state.last_run_id and run_time(state.last_run_id) >= reading.since
    if ran and not reading.numbers:
        return "no object of this time is left"
    age = audit.clock.now() - reading.since
    return lifecycle_sign(audit.client, audit.bucket.name, reading.feed.folder, age)


def _ask(audit: Audit, tap: TapClient, deadline: Deadline) -> Iterator[tuple[str, bool]]:
    """TAP's answers about the doubtful threats, as far as calls are allowed."""
    doubtful, allowed = audit.compared.doubtful, audit.plan.forensics_allowed
    if not doubtful or not allowed:
        return
    control = next((name for name in audit.shown.threats if name in audit.lines.threats), None)
    asked = [*([control] if control else []), *doubtful][:allowed]
    for number, answer in enumerate(ask_for_reports(tap, deadline, asked, lambda *_: None), 1):
        audit.say(f"Asking TAP for the reports of {many(len(asked), 'threat')}: {number:,} answered")
        yield answer
