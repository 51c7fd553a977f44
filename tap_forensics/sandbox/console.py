"""Terminal output of the demo: headings, objects with sizes, shortened JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def heading(text: str) -> None:
    print(f"\n== {text} ==", flush=True)


def log_line(line: str) -> None:
    """Prints one line of the function's log, marked to distinguish it from the demo's own output."""
    print(f"  | {line}", flush=True)


def object_list(objects: Mapping[str, bytes]) -> None:
    width = max(map(len, objects), default=0)
    for name, data in objects.items():
        print(f"  {name:<{width}}  {len(data):>9,} bytes")


def pretty(record: Mapping[str, Any], most: int) -> str:
    """A record as indented JSON with every field; long values are cut to `most` items and a note."""
    shown = {key: cut(item, most) for key, item in record.items()}
    return json.dumps(shown, indent=2, ensure_ascii=False)


def cut(value: Any, most: int) -> Any:
    """The value with long lists, dicts and strings shortened, at every depth."""
    if isinstance(value, dict):
        return _cut_map(value, most)
    if isinstance(value, list):
        shown = [cut(item, most) for item in value[:most]]
        return shown + ([f"… {len(value) - most} more"] if len(value) > most else [])
    if isinstance(value, str) and len(value) > 100:
        return f"{value[:100]}…"
    return value


def _cut_map(value: dict[str, Any], most: int) -> dict[str, Any]:
    # A record with few fields is shown in full. Only what grows with the number of threats is cut.
    limit = len(value) if len(value) <= 10 else most
    shown = {key: cut(item, most) for key, item in list(value.items())[:limit]}
    return shown | ({"…": f"{len(value) - limit} more"} if len(value) > limit else {})
