"""One run under the operator's eyes: a live picture on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from google.cloud.storage import Client
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tap_forensics.cli.context import Desk
from tap_forensics.cli.terminal import lasting, many, shown
from tap_forensics.clock import Clock
from tap_forensics.collect import collect
from tap_forensics.config.settings import Settings
from tap_forensics.log import Readable
from tap_forensics.stats import Figures
from tap_forensics.tap.windows import Window

_BAR_COLUMNS = 30
_REFRESHES_PER_SECOND = 5
# Before so many are done, the pace tells little.
_DONE_BEFORE_GUESSING = 3


@dataclass
class Watched:
    """A run's figures as they fill, and since when its threats are being fetched."""

    figures: Figures
    clock: Clock
    budget_seconds: int
    began: float = field(init=False)
    fetching_since: float | None = None

    def __post_init__(self) -> None:
        self.began = self.clock.monotonic()

    def picture(self) -> Table:
        figures = self.figures
        done = figures.threats_answered
        picture = Table.grid(padding=(0, 2))
        picture.add_row("windows", _bar(figures.windows, figures.windows_planned))
        picture.add_row("", shown(f"{figures.windows} of {figures.windows_planned}, {figures.events} events"))
        picture.add_row("threats", _bar(done, figures.threats_chosen))
        skipped, failed = figures.threats_skipped, figures.threats_failed
        picture.add_row("", shown(f"{done} of {figures.threats_chosen}, {skipped} skipped, {failed} failed"))
        picture.add_row("written", shown(_written(figures)))
        picture.add_row("calls left", shown(_calls_left(figures)))
        picture.add_row("time", shown(self._time(done)))
        return picture

    def _time(self, done: int) -> str:
        now = self.clock.monotonic()
        spent = now - self.began
        most = max(0.0, self.budget_seconds - spent)
        if self.figures.threats_chosen and self.fetching_since is None:
            self.fetching_since = now
        if self.fetching_since is None or done < _DONE_BEFORE_GUESSING:
            return f"{_span(spent)} so far, at most {_span(most)} to go"
        left = (self.figures.threats_chosen - done) * (now - self.fetching_since) / done
        return f"{_span(spent)} so far, about {_span(min(left, most))} to go"


def watched_run(
    desk: Desk, settings: Settings, open_client: Callable[[], Client], figures: Figures, again: Window | None
) -> Figures:
    """`collect`, watched. Raises as it does."""
    watched = Watched(figures, desk.clock, settings.run_budget_seconds)
    with _shown_live(desk, watched):
        return collect(settings, open_client, desk.clock, _log(desk), figures, again)


@contextmanager
def _shown_live(desk: Desk, watched: Watched) -> Iterator[None]:
    if not desk.err.is_terminal:
        yield
        return
    with Live(
        console=desk.err,
        get_renderable=watched.picture,
        refresh_per_second=_REFRESHES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
        # The summary takes its place.
        transient=True,
    ):
        yield


class _ToConsole(logging.Handler):
    def __init__(self, desk: Desk, level: int) -> None:
        super().__init__(level)
        self._desk = desk
        self.setFormatter(Readable(desk.tenant))

    def emit(self, record: logging.LogRecord) -> None:
        style = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno, "")
        # With the terminal gone there is nobody to tell, and the run must still end in order.
        with suppress(OSError):
            self._desk.err.print(shown(self.format(record), style), soft_wrap=True)


def _log(desk: Desk) -> logging.Logger:
    """Beside a live picture only what is wrong; else every line."""
    log = logging.Logger("tap_forensics", logging.INFO)
    log.addHandler(_ToConsole(desk, logging.WARNING if desk.err.is_terminal else logging.INFO))
    return log


def _bar(done: int, of: int) -> ProgressBar:
    return ProgressBar(total=max(of, 1), completed=min(done, max(of, 1)), width=_BAR_COLUMNS)


def _written(figures: Figures) -> str:
    written = figures.lines_bytes + figures.event_bytes
    return f"{written:,} bytes, of {many(figures.reports, 'report')} and {many(figures.event_lines, 'event')}"


def _calls_left(figures: Figures) -> str:
    siem, forensics = figures.siem_calls_left, figures.forensics_calls_left
    return f"SIEM {_count(siem)}, forensics {_count(forensics)}"


def _count(left: int | None) -> str:
    return "no limit set" if left is None else f"{left:,}"


def _span(seconds: float) -> str:
    return lasting(timedelta(seconds=seconds))
