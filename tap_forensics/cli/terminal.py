"""The output of a command: results on stdout, progress and logs on stderr; colours only on a terminal.

Whatever comes from the bucket or the API goes through `safe_text`: neither control characters nor the markup
of rich reach the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import IO, Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tap_forensics.clock import iso
from tap_forensics.log import escape_unprintable

# More than any line that is printed.
_UNLIMITED_WIDTH = 100_000
_LONGEST = 2000
_MAX_ROWS = 20


def console(stream: IO[str]) -> Console:
    """If the stream is no terminal: plain text in lines of any length."""
    width = None if stream.isatty() else _UNLIMITED_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def safe_text(value: object, style: str = "") -> Text:
    return Text(escape_unprintable(str(value), _LONGEST), style=style)


def print_fields(out: Console, title: str, rows: Iterable[tuple[str, object]]) -> None:
    """Names and values under a heading.

    The terminal wraps long lines, not we: so that what is copied from it is still in one piece.
    """
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    out.print(safe_text(title, "bold"), soft_wrap=True)
    for name, value in rows:
        line = safe_text(f" {name:<{width}}  ", "dim")
        out.print(line.append_text(Text("").append_text(safe_text(value))), soft_wrap=True)


def print_grid(out: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under a heading (if it is not empty) and column names, the first 20 of them.

    On a terminal that is too narrow, each row becomes some lines: a table would break names.
    """
    cells = [[safe_text(value) for value in row] for row in rows]
    if title:
        out.print(safe_text(title, "bold"), soft_wrap=True)
    table = _table(columns, cells[:_MAX_ROWS])
    if out.measure(table, options=out.options.update(width=_UNLIMITED_WIDTH)).maximum <= out.width:
        out.print(table)
    else:
        _print_rows(out, columns, cells[:_MAX_ROWS])
    if len(cells) > _MAX_ROWS:
        out.print(f" … {len(cells) - _MAX_ROWS:,} more (--json has all)", soft_wrap=True)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> Table:
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def _print_rows(out: Console, columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    for first, *others in rows:
        out.print(Text(" ").append_text(first), soft_wrap=True)
        told = [f"{name} {value}" for name, value in zip(columns[1:], others, strict=True) if value.plain]
        for line in told:
            out.print(safe_text(f"   {line}", "dim"), soft_wrap=True)


def as_json(value: Any) -> str:
    """ASCII only, so that nothing in it can act on a terminal; times in ISO 8601."""
    return json.dumps(value, indent=2, default=_plain)


def json_line(value: Any) -> str:
    """Compact JSON on one line; characters that do not print are escaped as \\uXXXX."""
    text = msgspec.json.encode(value).decode()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def lasting(span: timedelta) -> str:
    """`45 s` · `12 min` · `3 h 05 min` · `6 d 04 h`."""
    seconds = int(span / timedelta(seconds=1))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 2:
        return f"{days} d {hours % 24:02d} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds} s"


def many(number: int, noun: str) -> str:
    """`1 object`, `1,200 objects`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    if moment > now:
        return f"{iso(moment)} (in {lasting(moment - now)})"
    return f"{iso(moment)} ({lasting(now - moment)} ago)"
