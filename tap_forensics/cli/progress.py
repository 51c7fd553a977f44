"""One run with progress: a live table on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from google.cloud.storage import Client
from rich.progress_bar import ProgressBar
from rich.table import Table

from tap_forensics.cli.activity import shown_live
from tap_forensics.cli.context import CommandContext
from tap_forensics.cli.terminal import lasting, many, safe_text
from tap_forensics.clock import Clock
from tap_forensics.collect import RunOptions, collect
from tap_forensics.config.settings import Settings
from tap_forensics.log import ConsoleFormatter
from tap_forensics.stats import RunStats
from tap_forensics.tap.windows import Window

_BAR_COLUMNS = 30
# The rate is not meaningful before so many are done.
_DONE_BEFORE_ESTIMATE = 3


@dataclass
class Progress:
    """The figures of a run while they grow, and since when it has been fetching threats."""

    stats: RunStats
    clock: Clock
    budget_seconds: int
    started: float = field(init=False)
    fetching_since: float | None = None

    def __post_init__(self) -> None:
        self.started = self.clock.monotonic()

    def render(self) -> Table:
        stats = self.stats
        done = stats.threats_answered
        table = Table.grid(padding=(0, 2))
        table.add_row("windows", _bar(stats.windows, stats.windows_planned))
        table.add_row("", safe_text(f"{stats.windows} of {stats.windows_planned}, {stats.events} events"))
        table.add_row("threats", _bar(done, stats.threats_chosen))
        skipped, failed = stats.threats_skipped, stats.threats_failed
        table.add_row("", safe_text(f"{done} of {stats.threats_chosen}, {skipped} skipped, {failed} failed"))
        table.add_row("written", safe_text(_written(stats)))
        table.add_row("calls left", safe_text(_calls_left(stats)))
        table.add_row("time", safe_text(self._time(done)))
        return table

    def _time(self, done: int) -> str:
        now = self.clock.monotonic()
        spent = now - self.started
        most = max(0.0, self.budget_seconds - spent)
        if self.stats.threats_chosen and self.fetching_since is None:
            self.fetching_since = now
        if self.fetching_since is None or done < _DONE_BEFORE_ESTIMATE:
            return f"{_span(spent)} so far, at most {_span(most)} to go"
        left = (self.stats.threats_chosen - done) * (now - self.fetching_since) / done
        return f"{_span(spent)} so far, about {_span(min(left, most))} to go"


def watched_run(
    context: CommandContext,
    settings: Settings,
    open_client: Callable[[], Client],
    stats: RunStats,
    again: Window | None,
) -> RunStats:
    """`collect` with progress. Raises what it raises."""
    watched = Progress(stats, context.clock, settings.run.budget_seconds)
    with shown_live(context.err, watched.render):
        return collect(settings, open_client, context.clock, _log(context), RunOptions(stats, again))


class _ToConsole(logging.Handler):
    def __init__(self, context: CommandContext, level: int) -> None:
        super().__init__(level)
        self._context = context
        self.setFormatter(ConsoleFormatter(context.tenant))

    def emit(self, record: logging.LogRecord) -> None:
        style = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno, "")
        # If the terminal was closed, the run must still end in order.
        with suppress(OSError):
            self._context.err.print(safe_text(self.format(record), style), soft_wrap=True)


def _log(context: CommandContext) -> logging.Logger:
    """Beside a live table only warnings and errors, otherwise every line."""
    log = logging.Logger("tap_forensics", logging.INFO)
    log.addHandler(_ToConsole(context, logging.WARNING if context.err.is_terminal else logging.INFO))
    return log


def _bar(done: int, of: int) -> ProgressBar:
    return ProgressBar(total=max(of, 1), completed=min(done, max(of, 1)), width=_BAR_COLUMNS)


def _written(stats: RunStats) -> str:
    written = stats.lines_bytes + stats.event_bytes
    return f"{written:,} bytes, of {many(stats.reports, 'report')} and {many(stats.event_lines, 'event')}"


def _calls_left(stats: RunStats) -> str:
    siem, forensics = stats.siem_calls_left, stats.forensics_calls_left
    return f"SIEM {_count(siem)}, forensics {_count(forensics)}"


def _count(left: int | None) -> str:
    return "no limit set" if left is None else f"{left:,}"


def _span(seconds: float) -> str:
    return lasting(timedelta(seconds=seconds))
