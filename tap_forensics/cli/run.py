"""`tap-forensics run`: one run now, on the same code as the function."""

from __future__ import annotations

import click

from tap_forensics.cli.context import Desk, Exit, at_a_desk
from tap_forensics.cli.progress import watched_run
from tap_forensics.cli.terminal import facts, many
from tap_forensics.errors import LeaseHeld, RunFailed
from tap_forensics.stats import Figures

_ENDS = {"complete": Exit.GOOD, "incomplete": Exit.WAITS, "busy": Exit.BUSY, "failed": Exit.WRONG}


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
@at_a_desk
def run(desk: Desk) -> Exit:
    """One run now, in this process, as the function does it.

    It takes the same lease: while another run is at work it ends with 4.
    """
    settings = desk.settings()
    figures = Figures()
    try:
        with desk.storage(settings) as open_client:
            watched_run(desk, settings, open_client, figures, None)
    except LeaseHeld:
        end = Exit.BUSY
    except RunFailed:
        end = Exit.WRONG
    except KeyboardInterrupt:
        figures.reason = "interrupted"
        desk.tell("Interrupted. What was finished counts; the next run goes on from there.")
        end = Exit.INTERRUPTED
    else:
        end = _ENDS[figures.outcome]
    _give(desk, figures)
    return end


def _give(desk: Desk, figures: Figures) -> None:
    if desk.as_json:
        desk.give(figures.as_fields())
    else:
        desk.out.print(facts(f"Run {figures.run_id or '(none)'}: {figures.outcome}", summary(figures)))


def summary(figures: Figures) -> list[tuple[str, str]]:
    """The figures that an operator looks for, in words."""
    f = figures
    windows = f"{f.windows:,} asked for, {f.windows_failed:,} in vain; {many(f.events, 'event')}"
    forensics = f"{f.threats_fetched:,} fetched, {f.threats_skipped:,} without evidence"
    waiting = f"{f.threats_failed:,} failed, {f.threats_left:,} left on the backlog"
    evidence = f"{many(f.reports, 'report')} in {many(f.lines, 'line')}"
    written = f"{f.lines_bytes:,} bytes in {many(f.objects, 'object')}"
    rows = [
        ("why", f.reason),
        ("windows", windows),
        ("threats", f"{f.threats_found:,} found, {f.threats_new:,} of them new"),
        ("forensics", f"{forensics}, {waiting}"),
        ("evidence", f"{evidence}, {written}"),
        ("events", _events(f)),
        ("gaps", f"{f.gaps} open, {f.lost_intervals} lost" if f.gaps or f.lost_intervals else ""),
        ("SIEM calls", f"{f.siem_calls:,}, of them {f.siem_429s:,} answered 429"),
        ("forensics calls", f"{f.forensics_calls:,}, of them {f.forensics_429s:,} answered 429"),
        ("cursor", "" if f.cursor_lag_seconds is None else f"{f.cursor_lag_seconds:,} s behind now"),
        ("took", f"{f.seconds:.1f} s"),
    ]
    return [(name, words) for name, words in rows if words]


def _events(f: Figures) -> str:
    if not (f.event_lines or f.events_repeated):
        return ""
    written = f"{f.event_bytes:,} bytes in {many(f.event_objects, 'object')}"
    lines = f"{many(f.event_lines, 'line')}, {written}"
    return f"{lines}; {f.events_repeated:,} known already, {many(f.events_updated, 'update')}"
