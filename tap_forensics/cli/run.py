"""`tap-forensics run`: one run now, on the same code as the function."""

from __future__ import annotations

import click

from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.progress import watched_run
from tap_forensics.cli.terminal import fields, many
from tap_forensics.errors import LeaseHeld, RunFailed
from tap_forensics.stats import RunStats

_ENDS = {"complete": Exit.GOOD, "incomplete": Exit.INCOMPLETE, "busy": Exit.BUSY, "failed": Exit.WRONG}


@click.command(
    epilog="""\b
Example:
  TAP_PRINCIPAL=… TAP_SECRET=… tap-forensics run --folder ./tap
\b
--json gives the figures of the function's last log line: `outcome` (complete, incomplete, busy,
failed), `reason`, `run_id`, counts, `*_bytes`, `*_seconds`.
Ctrl-C gives the lease back; what was finished counts, and the next run goes on from there.
"""
)
@cli_command
def run(context: CommandContext) -> Exit:
    """One run now, in this process, as the function does it.

    It takes the same lease: while another run is at work it ends with 4.
    """
    settings = context.settings()
    stats = RunStats()
    try:
        with context.storage(settings) as open_client:
            watched_run(context, settings, open_client, stats, None)
    except LeaseHeld:
        end = Exit.BUSY
    except RunFailed:
        end = Exit.WRONG
    except KeyboardInterrupt:
        stats.reason = "interrupted"
        context.print_status("Interrupted. What was finished counts; the next run goes on from there.")
        end = Exit.INTERRUPTED
    else:
        end = _ENDS[stats.outcome]
    _give(context, stats)
    return end


def _give(context: CommandContext, stats: RunStats) -> None:
    if context.as_json:
        context.print_json(stats.as_fields())
    else:
        context.out.print(fields(f"Run {stats.run_id or '(none)'}: {stats.outcome}", summary(stats)))


def summary(stats: RunStats) -> list[tuple[str, str]]:
    """The figures that an operator looks for, in words."""
    f = stats
    windows = f"{f.windows:,} asked for, {f.windows_failed:,} in vain; {many(f.events, 'event')}"
    forensics = f"{f.threats_fetched:,} fetched, {f.threats_skipped:,} without evidence"
    before_sleep = f"{f.threats_failed:,} failed, {f.threats_left:,} left on the backlog"
    evidence = f"{many(f.reports, 'report')} in {many(f.lines, 'line')}"
    written = f"{f.lines_bytes:,} bytes in {many(f.objects, 'object')}"
    rows = [
        ("why", f.reason),
        ("windows", windows),
        ("threats", f"{f.threats_found:,} found, {f.threats_new:,} of them new"),
        ("forensics", f"{forensics}, {before_sleep}"),
        ("evidence", f"{evidence}, {written}"),
        ("events", _events(f)),
        ("gaps", f"{f.gaps} open, {f.lost_intervals} lost" if f.gaps or f.lost_intervals else ""),
        ("SIEM calls", f"{f.siem_calls:,}, of them {f.siem_429s:,} answered 429"),
        ("forensics calls", f"{f.forensics_calls:,}, of them {f.forensics_429s:,} answered 429"),
        ("cursor", "" if f.cursor_lag_seconds is None else f"{f.cursor_lag_seconds:,} s behind now"),
        ("took", f"{f.seconds:.1f} s"),
    ]
    return [(name, words) for name, words in rows if words]


def _events(f: RunStats) -> str:
    if not (f.event_lines or f.events_repeated):
        return ""
    written = f"{f.event_bytes:,} bytes in {many(f.event_objects, 'object')}"
    lines = f"{many(f.event_lines, 'line')}, {written}"
    return f"{lines}; {f.events_repeated:,} known already, {many(f.events_updated, 'update')}"
