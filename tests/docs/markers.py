"""Generated parts of the documentation: `<!-- generated: NAME -->` … `<!-- end -->`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
_PART = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)
_NOT_OURS = (".venv", ".git", ".terraform", "node_modules", ".pytest_cache")


def pages() -> list[Path]:
    """Every Markdown file of the checkout."""
    found = sorted(CHECKOUT.rglob("*.md"))
    return [path for path in found if not path.relative_to(CHECKOUT).parts[0].startswith(_NOT_OURS)]


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Name and text of each generated part of a page."""
    for match in _PART.finditer(text):
        yield match["name"], match["text"]


def without_parts(text: str) -> str:
    return _PART.sub("", text)


def updated(text: str, make: Callable[[str], str]) -> str:
    """The page with every part as `make` gives it; a part that differs only in numbers stays as it is."""

    def part(match: re.Match[str]) -> str:
        new = make(match["name"])
        kept = match["text"] if normalized(match["text"]) == normalized(new) else new
        return f"{match[1]}{kept}{match[4]}"

    return _PART.sub(part, text)


def normalized(text: str) -> str:
    """A screen without what differs from run to run: numbers, times, hex ids, widths of tables."""
    text = re.sub(r"\b[0-9a-f]{8,}\b", "HEX", text)
    text = re.sub(r"\d[\d,.:_TZ-]*", "N", text)
    # A table is as wide as its numbers, and a line that differs in numbers only may come once more.
    lines = re.sub(r"[ ─━]+", " ", text).splitlines(keepends=True)
    return "".join(line for line, _ in itertools.groupby(lines))
