"""SOURCE of `report` and `udm`: its options, and its records with progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import click

from tap_forensics.cli.activity import Say, activity
from tap_forensics.cli.moments import Moment
from tap_forensics.cli.terminal import console
from tap_forensics.report.records import Record, Tally, read_records
from tap_forensics.report.selection import Selection
from tap_forensics.report.source import Line, source_lines

_SAY_EVERY_LINES = 200

Command = TypeVar("Command", bound=Callable[..., Any])


def selection_options(command: Command) -> Command:
    """--since, --until and --tenant, as arguments of a `Selection`."""
    for option in (
        click.option(
            "--tenant", metavar="NAME", help="Only objects in this tenant's folder (…/NAME/) of SOURCE."
        ),
        click.option("--until", type=Moment(), help="Only what is earlier."),
        click.option(
            "--since",
            type=Moment(),
            help="Only reports that TAP made then or later, and events since then (ISO 8601).",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def selected_records(
    source: str, selection: Selection, tally: Tally, *, live: bool = True
) -> Iterator[tuple[Iterator[Record], Say]]:
    """The wanted records, and how to say what is done next: if `live`, a terminal shows it."""
    if source == "-" and selection.tenant is not None:
        raise click.UsageError("--tenant needs names of objects: give a folder or gs://bucket/prefix")
    with activity(console(sys.stderr)) if live else nullcontext(lambda _: None) as say:
        lines = _counted(source_lines(source, sys.stdin.buffer, selection.wants_object), say)
        yield selection.select(read_records(lines, tally), tally), say


def _counted(lines: Iterator[Line], say: Say) -> Iterator[Line]:
    for number, line in enumerate(lines):
        if number % _SAY_EVERY_LINES == 0:
            say(f"{number:,} lines read; reading {line.place}")
        yield line


def left_out(tally: Tally) -> str:
    """A sentence about what a selection by time could not judge; empty if there is nothing."""
    if not tally.without_time:
        return ""
    return f"{tally.without_time:,} records have no valid time: --since and --until leave them out."
