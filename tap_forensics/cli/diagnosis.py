"""What the doctor says of one thing: a mark, the thing, what was found, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["ok", "warning", "wrong"]
SIGNS: dict[Mark, str] = {"ok": "✓", "warning": "!", "wrong": "✗"}
STYLES: dict[Mark, str] = {"ok": "green", "warning": "yellow", "wrong": "red"}


@dataclass(frozen=True)
class Finding:
    """`about` is a stable key for machines; `remedy` is empty where nothing is to be done."""

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
