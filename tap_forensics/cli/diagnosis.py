"""A finding of the health check: a mark, what it is about, what was found, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["ok", "warning", "wrong"]
SIGNS: dict[Mark, str] = {"ok": "✓", "warning": "!", "wrong": "✗"}
STYLES: dict[Mark, str] = {"ok": "green", "warning": "yellow", "wrong": "red"}


@dataclass(frozen=True)
class Finding:
    """`about` is a stable key for programs; `remedy` is empty if there is nothing to do."""

    mark: Mark
    about: str
    words: str
    remedy: str = ""


def ok(about: str, words: str) -> Finding:
    return Finding("ok", about, words)


def warning(about: str, words: str, remedy: str = "") -> Finding:
    return Finding("warning", about, words, remedy)


def wrong(about: str, words: str, remedy: str = "") -> Finding:
    return Finding("wrong", about, words, remedy)
