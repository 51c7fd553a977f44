"""`tap-forensics run`: one run now, on the same code as the function."""

from __future__ import annotations

import click

from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.progress import watched_run
from tap_forensics.cli.terminal import many, print_fields
from tap_forensics.errors import LeaseHeld, RunFailed
from tap_forensics.stats import RunStats

_EXIT_CODES = {"complete": Exit.GOOD, "incomplete": Exit.INCOMPLETE, "busy": Exit.BUSY, "failed": Exit.WRONG}


@click.command(
    epilog="""\b
Example:
  TAP_PRINCIPAL=… TAP_SECRET=… tap-forensics run --folder ./tap
\b
--json gives the figures of the function's last log line: `outcome` (complete, incomplete, busy,
failed), `reason`, `run_id`, counts, `*_bytes`, `*_seconds`.
Ctrl-C releases the lease; what was finished counts, and the next run continues from there.
"""
)
@cli_command
def run(context: CommandContext) -> Exit:
    """Do one run now, in this process, as the function does it.

    It takes the same lease: while another run is at work, it ends with 4.
    """
    settings = context.settings()
    stats = RunStats()
    try:
        with context.storage(settings) as open_client:
            watched_run(context, settings, open_client, stats, None)
    except LeaseHeld:
        exit_code = Exit.BUSY
    except RunFailed:
        exit_code = Exit.WRONG
    except KeyboardInterrupt:
        stats.reason = "interrupted"
        context.print_status("Interrupted. What was finished counts; the next run continues from there.")
        exit_code = Exit.INTERRUPTED
    else:
        exit_code = _EXIT_CODES[stats.outcome]
    _print(context, stats)
    return exit_code


def _print(context: CommandContext, stats: RunStats) -> None:
    if context.as_json:
        context.print_json(stats.as_fields())
    else:
        print_fields(context.out, f"Run {stats.run_id or '(none)'}: {stats.outcome}", summary(stats))


def summary(stats: RunStats) -> list[tuple[str, str]]:
    """The figures that an operator looks for, with the words around them."""
    windows = f"{stats.windows:,} asked for, {stats.windows_failed:,} failed; {many(stats.events, 'event')}"
    forensics = f"{stats.threats_fetched:,} fetched, {stats.threats_skipped:,} without evidence"
    open_threats = f"{stats.threats_failed:,} failed, {stats.threats_left:,} left on the backlog"
    evidence = f"{many(stats.reports, 'report')} in {many(stats.lines, 'line')}"
    written = f"{stats.lines_bytes:,} bytes in {many(stats.objects, 'object')}"
    rows = [
        ("why", stats.reason),
        ("windows", windows),
        ("threats", f"{stats.threats_found:,} found, {stats.threats_new:,} of them new"),
        ("forensics", f"{forensics}, {open_threats}"),
        ("evidence", f"{evidence}, {written}"),
        ("events", _events(stats)),
        (
            "gaps",
            f"{stats.gaps} open, {stats.lost_intervals} lost" if stats.gaps or stats.lost_intervals else "",
        ),
        ("SIEM calls", f"{stats.siem_calls:,}, of them {stats.siem_429s:,} answered 429"),
        ("forensics calls", f"{stats.forensics_calls:,}, of them {stats.forensics_429s:,} answered 429"),
        ("cursor", "" if stats.cursor_lag_seconds is None else f"{stats.cursor_lag_seconds:,} s behind now"),
        ("took", f"{stats.seconds:.1f} s"),
    ]
    return [(name, words) for name, words in rows if words]


def _events(stats: RunStats) -> str:
    if not (stats.event_lines or stats.events_repeated):
        return ""
    written = f"{stats.event_bytes:,} bytes in {many(stats.event_objects, 'object')}"
    lines = f"{many(stats.event_lines, 'line')}, {written}"
    return f"{lines}; {stats.events_repeated:,} already known, {many(stats.events_updated, 'update')}"
