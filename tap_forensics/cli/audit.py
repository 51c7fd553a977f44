"""`tap-forensics audit`: whether the bucket has what TAP shows of a past interval, and if not, why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from google.cloud.storage import Client

from tap_forensics.audit.comparison import KINDS, DayCount, Verdict, day_counts
from tap_forensics.audit.lines import Undecidable
from tap_forensics.cli.activity import activity
from tap_forensics.cli.audit_repair import Repaired, reopen_missing
from tap_forensics.cli.audit_work import Audit, Plan, Wishes, carry_out, find, make_plan, new_audit
from tap_forensics.cli.context import CommandContext, Exit, cli_command, wait_option
from tap_forensics.cli.moments import Moment
from tap_forensics.cli.terminal import many, print_fields, print_grid, safe_text
from tap_forensics.config.settings import Settings
from tap_forensics.errors import InvalidSettings, LeaseHeld, RunFailed
from tap_forensics.tap.quota import FORENSICS, SIEM

_SIGNS = {Verdict.DEFECT: ("✗", "red"), Verdict.UNDECIDED: ("!", "yellow"), Verdict.EXPLAINED: ("·", "dim")}
_RESULTS = {
    True: ("✓ Complete: the bucket has everything that TAP shows of this interval.", "green"),
    False: ("✗ Not complete.", "red"),
    None: ("! It could not be decided whether the bucket is complete.", "yellow"),
}
_EXIT = {True: Exit.GOOD, False: Exit.WRONG, None: Exit.INCOMPLETE}
_NO_EXTRA = "--html needs {name}: from a checkout, pip install '.[cli,report]'"

_Path = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(
    epilog="""\b
Examples:
  tap-forensics audit --from 2026-11-20T00:00Z
  tap-forensics audit --from 2026-11-20 --to 2026-11-21 --html completeness.html
  tap-forensics audit --from 2026-11-20 --to 2026-11-21 --repair
\b
--json: {"from", "to", "notes": [TEXT], "complete": true|false|null, "reason",
  "calls": {"siem_needed", "siem_left", "siem_made", "forensics_left", "forensics_made"},
  "days": [{"day", "kind", "shown", "in_bucket", "explained", "missing"}],
  "findings": {KIND: {"count", "named": [{"name", "why"}]}},
  "objects", "lines", "repaired": null | {"threats", "windows"}}
\b
Exit codes: 0 complete; 1 something is missing, occurs twice, or cannot be read by a feed;
            2 wrong usage or settings; 3 could not be decided (calls, time, TAP or bucket not
            reachable, deleted objects); 4 --repair found a run at work; 130 interrupted.
"""
)
@click.option("--from", "start", type=Moment(), required=True, help="Start of the interval (ISO 8601).")
@click.option(
    "--to", "end", type=Moment(), help="Its end. Default: the cursor, less OVERLAP_MINUTES for late events."
)
@click.option("--html", type=_Path, metavar="FILE", help="Also write the result as one page.")
@click.option("--repair", is_flag=True, help="Put what is missing back on the backlog.")
@click.option(
    "--max-calls", type=click.IntRange(0), metavar="N", help="Make at most N calls to TAP, of both kinds."
)
@click.option(
    "--forensics-calls",
    type=click.IntRange(0),
    metavar="N",
    help="Ask TAP for the reports of at most N threats. Default: a tenth of the calls left, or 100.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(1),
    default=3600,
    metavar="SECONDS",
    show_default=True,
    help="Stop asking TAP after this time.",
)
@wait_option("How long --repair waits for a run that is at work.")
@cli_command
def audit(context: CommandContext, html: Path | None, repair: bool, wait: float, **options: Any) -> Exit:
    """Compare what TAP shows of a past interval with the bucket: is everything there, once, and readable?

    Reads the interval from TAP again, as far as its 7 days go, and the lines in the bucket. Says first how
    many calls that needs. Reports threats and events without a line and why, lines that occur twice, lines
    whose event TAP no longer shows, and objects that a feed cannot read.

    Writes nothing to the bucket and never takes the lease. Its calls to TAP are not in the count that the
    state has, so 35 % of the SIEM calls that the state counts are left for the scheduled runs.

    With --repair, missing threats are put back on the backlog, and windows with missing events are opened
    again, by one commit between two runs. The next run delivers them.
    """
    context = replace(context, lease_wait_seconds=wait)
    settings, wishes = context.settings(), Wishes(**options)
    write_page = _page_writer(html) if html else None
    try:
        with context.client(settings) as client:
            work = _carried_out(context, settings, client, wishes)
            if isinstance(work, Exit):
                return work
            repaired, busy = _repaired(context, work) if repair else (None, "")
    except InvalidSettings:
        raise
    except (RunFailed, Undecidable) as error:
        return _not_decided(context, None, str(error))
    result = _result(work, repaired)
    if write_page:
        write_page(settings, work)
    if context.as_json:
        context.print_json(result | {"reason": busy})
    else:
        _print_result(context, work, repaired)
    if busy:
        context.print_status(f"✗ {busy}", "red")
        return Exit.BUSY
    return _EXIT[result["complete"]]


def _carried_out(context: CommandContext, settings: Settings, client: Client, wishes: Wishes) -> Audit | Exit:
    found = find(settings, client, context.clock)
    plan = make_plan(found[1], settings, wishes)
    if not context.as_json:
        print_fields(context.out, f"Audit of gs://{settings.bucket.name}", _plan_rows(settings, plan))
    if reason := plan.refusal():
        return _not_decided(context, plan, reason)
    with activity(context.err) as say:
        work = new_audit(settings, client, found, plan, say)
        carry_out(work, wishes.max_seconds)
    return work


def _repaired(context: CommandContext, work: Audit) -> tuple[Repaired | None, str]:
    """What is open again, or why nothing was repaired."""
    with activity(context.err) as say:
        try:
            return reopen_missing(replace(work, say=say), context.lease_wait_seconds), ""
        except LeaseHeld as error:
            return None, str(error)


def _not_decided(context: CommandContext, plan: Plan | None, reason: str) -> Exit:
    if context.as_json:
        context.print_json({**_plan_fields(plan), "complete": None, "reason": reason})
    else:
        words, style = _RESULTS[None]
        context.out.print(safe_text(words, style), soft_wrap=True)
        context.print_status(f"✗ {reason}", "red")
    return Exit.INCOMPLETE


def _plan_fields(plan: Plan | None) -> dict[str, Any]:
    if plan is None:
        return {}
    calls = {"siem_needed": len(plan.windows), "siem_left": plan.siem_left}
    return {
        "from": plan.interval.start,
        "to": plan.interval.end,
        "notes": plan.notes,
        "calls": calls | {"forensics_left": plan.forensics_left},
    }


def _plan_rows(settings: Settings, plan: Plan) -> Iterator[tuple[str, str]]:
    yield "interval", str(plan.interval)
    yield "compared", " and ".join(_compared(settings))
    needed = f"{len(plan.windows):,} needed, {plan.siem_left:,} left"
    yield "SIEM calls", f"{needed}, of which {plan.siem_kept:,} are kept for the scheduled runs"
    if settings.forensics.enabled:
        left = "no limit set" if plan.forensics_left is None else f"{plan.forensics_left:,} left"
        most = (
            f"at most {plan.forensics_allowed:,}, for threats without a line that the state does not explain"
        )
        yield "forensics calls", f"{most}; {left}"
    yield from (("note", note) for note in plan.notes)


def _compared(settings: Settings) -> Iterator[str]:
    if settings.forensics.enabled:
        yield f"threats with {settings.bucket.prefix or 'the bucket'}/"
    if settings.events.prefix is not None:
        yield f"events with {settings.events.prefix or 'the bucket'}/"


def _result(work: Audit, repaired: Repaired | None) -> dict[str, Any]:
    """The shape of `--json`."""
    findings, fields = work.compared.findings, _plan_fields(work.plan)
    made = {"siem_made": work.calls.get(SIEM, 0), "forensics_made": work.calls.get(FORENSICS, 0)}
    rows = day_counts(work.shown, work.compared)
    return fields | {
        "calls": fields["calls"] | made,
        "complete": findings.is_complete(),
        "days": [{**row._asdict(), "day": row.day.isoformat(), "missing": row.missing} for row in rows],
        "findings": {
            kind: {
                "count": findings.counts[kind],
                "named": [defect._asdict() for defect in findings.named[kind]],
            }
            for kind in KINDS
            if findings.counts[kind]
        },
        "objects": len(work.lines.sources),
        "lines": work.lines.lines,
        "repaired": repaired.as_fields() if repaired else None,
    }


def _print_result(context: CommandContext, work: Audit, repaired: Repaired | None) -> None:
    findings = work.compared.findings
    columns = ("kind", "TAP shows", "in the bucket", "none to come", "missing")
    print_grid(context.out, "By kind", columns, list(_by_kind(day_counts(work.shown, work.compared))))
    for kind, (title, verdict) in KINDS.items():
        if count := findings.counts[kind]:
            sign, style = _SIGNS[verdict]
            context.out.print(safe_text(f"{sign} {title}: {count:,}", style), soft_wrap=True)
            print_grid(context.out, "", ("what", "why"), findings.named[kind])
    objects = f"{many(len(work.lines.sources), 'object')} with {many(work.lines.lines, 'line')}"
    deleted = sum(reading.deleted for reading in work.feeds)
    read = f"Read: {many(sum(work.calls.values()), 'call')} to TAP, {objects}"
    context.out.print(
        safe_text(read + (f", {deleted:,} of them deleted since" if deleted else "")), soft_wrap=True
    )
    words, style = _RESULTS[findings.is_complete()]
    context.out.print(safe_text(words, style), soft_wrap=True)
    if repaired:
        opened = f"{many(repaired.threats, 'threat')} and {many(repaired.windows, 'window')}"
        context.out.print(safe_text(f"Open again: {opened}. The next run delivers them."), soft_wrap=True)


def _by_kind(days: list[DayCount]) -> Iterator[tuple[str, ...]]:
    """The counts of all days together; the page and --json have them by day."""
    for kind in dict.fromkeys(row.kind for row in days):
        rows = [(row.shown, row.in_bucket, row.explained, row.missing) for row in days if row.kind == kind]
        yield kind, *(f"{sum(column):,}" for column in zip(*rows, strict=True))


def _page_writer(path: Path) -> Callable[[Settings, Audit], None]:
    """Raises `click.UsageError` if the page's libraries are missing, before anything is called."""
    try:
        from tap_forensics.audit.page import About, render_page  # noqa: PLC0415 - part of another extra
    except ModuleNotFoundError as error:
        raise click.UsageError(_NO_EXTRA.format(name=error.name)) from None

    def write(settings: Settings, work: Audit) -> None:
        about = About(
            bucket=settings.bucket.name,
            tenant=settings.tenant or "",
            interval=work.plan.interval,
            made=work.clock.now(),
            read=f"{many(len(work.lines.sources), 'object')}, {many(work.lines.lines, 'line')}",
        )
        text = render_page(about, day_counts(work.shown, work.compared), work.compared.findings)
        try:
            path.write_bytes(text.encode())
        except OSError as error:
            raise click.ClickException(f"could not write {safe_text(path)}: {error.strerror}") from None

    return write
