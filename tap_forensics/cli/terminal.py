"""How a command speaks: results on stdout, progress and logs on stderr; colours only on a terminal.

Whatever comes from the bucket or the API goes through `shown`: neither control characters nor rich's markup
reach the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import IO, Any

import msgspec
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tap_forensics.clock import iso
from tap_forensics.log import escape_unprintable

_PLAIN_WIDTH = 160
_LONGEST = 2000
_MOST_ROWS = 20


def console(stream: IO[str]) -> Console:
    """Plain text of a fixed width where the stream is no terminal."""
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def safe_text(value: object, style: str = "") -> Text:
    return Text(escape_unprintable(str(value), _LONGEST), style=style)


def fields(title: str, rows: Iterable[tuple[str, object]]) -> Group:
    """Two columns under a heading: what it is, and its value."""
    table = Table(box=None, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(safe_text(name), safe_text(value))
    return Group(safe_text(title, "bold"), table)


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Group:
    """Rows under a heading and the columns' names; of very many the first."""
    rows = list(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows[:_MOST_ROWS]:
        table.add_row(*map(safe_text, row))
    if len(rows) > _MOST_ROWS:
        table.add_row(f"… {len(rows) - _MOST_ROWS:,} more (--json has all)")
    return Group(safe_text(title, "bold"), table)


def as_json(value: Any) -> str:
    """ASCII only, so that nothing in it can act on a terminal; moments in ISO 8601."""
    return json.dumps(value, indent=2, default=_plain)


def json_line(value: Any) -> str:
    """Compact JSON on one line, in which every character that does not print is written as \\uXXXX."""
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
