"""The active parser of a log type, run on lines: SecOps shows the events that it makes of them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from tap_forensics.clock import parse_iso
from tap_forensics.secops.connection import Secops
from tap_forensics.secops.failures import Question, unexpected

# Fields of UDM that hold a value to search for. Google writes both spellings.
INDICATORS = frozenset(
    {
        "domain",
        "emailAddresses",
        "email_addresses",
        "fullPath",
        "full_path",
        "hostname",
        "ip",
        "md5",
        "registryKey",
        "registry_key",
        "sha1",
        "sha256",
        "url",
    }
)
_PAGE = 100
_MAX_MESSAGE = 300
_TOLERANCE = timedelta(seconds=1)


@dataclass(frozen=True)
class Parser:
    """`code` is None if SecOps does not show it. `extension`: the tenant's own additions to it."""

    code: str | None
    extension: str | None
    custom: bool


@dataclass(frozen=True)
class Parsed:
    """The events of one line: how many there are, have the right time, or hold an indicator.

    `error`: the parser's message without values of the line; "" if it succeeded.
    """

    events: int = 0
    timed: int = 0
    with_indicators: int = 0
    error: str = ""

    @property
    def complete(self) -> bool:
        return bool(self.timed and self.with_indicators)


class _ParserInfo(msgspec.Struct):
    state: str | None = None
    type: str | None = None
    cbn: str | None = None
    cbn_snippet: str | None = msgspec.field(default=None, name="cbnSnippet")


class _Error(msgspec.Struct):
    message: str | None = None


class _Result(msgspec.Struct):
    """`errors` is the client's word for it, `error` the API's. Events come in a list or an object of one."""

    parsed_events: Any = msgspec.field(default=None, name="parsedEvents")
    error: _Error | None = None
    errors: list[Any] | None = None


class _Results(msgspec.Struct):
    results: list[_Result] | None = msgspec.field(default=None, name="runParserResults")


def active_parser(secops: Secops, log_type: str) -> Parser | None:
    """None if no parser is active. Raises `SecopsFailed`."""
    listed = secops.ask(
        Question(f"list the parsers of {log_type}", "chronicle.parsers.list"),
        lambda: secops.client.list_parsers(log_type, page_size=_PAGE, filter="STATE=ACTIVE"),
        list[_ParserInfo],
    )
    active = [found for found in listed if found.state == "ACTIVE"]
    if not active:
        return None
    # A tenant's own parser takes the place of Google's.
    chosen = sorted(active, key=lambda found: found.type == "CUSTOM")[-1]
    return Parser(_decoded(chosen.cbn), _extension(secops, log_type), chosen.type == "CUSTOM")


def _extension(secops: Secops, log_type: str) -> str | None:
    listed = secops.ask(
        Question(f"list the parser extensions of {log_type}", "chronicle.parserExtensions.list"),
        lambda: secops.client.list_parser_extensions(log_type, page_size=_PAGE, as_list=True),
        list[_ParserInfo],
    )
    live = [found.cbn_snippet for found in listed if found.state == "LIVE"]
    return _decoded(live[0]) if live else None


def _decoded(code: str | None) -> str | None:
    try:
        return base64.b64decode(code or "", validate=True).decode() or None
    except (binascii.Error, ValueError):
        return None


def run_parser(
    secops: Secops, log_type: str, parser: Parser, lines: list[bytes], times: list[str | None]
) -> list[Parsed]:
    """What the parser makes of each line. `times`: when its events should be; None: any time will do.

    Raises `SecopsFailed`.
    """
    question = Question(f"run the parser of {log_type}", "chronicle.parsers.runParser")
    texts = [line.decode(errors="replace") for line in lines]
    answer = secops.ask(
        question,
        lambda: secops.client.run_parser(log_type, parser.code, parser.extension, texts),
        _Results,
    )
    results = answer.results or []
    if len(results) != len(lines):
        raise unexpected(question)
    return [_parsed(*each) for each in zip(results, texts, times, strict=True)]


def _parsed(result: _Result, line: str, time: str | None) -> Parsed:
    if result.error or result.errors:
        return Parsed(error=_message(result, line))
    events = list(_events(result.parsed_events))
    return Parsed(
        len(events),
        sum(_has_time(event, time) for event in events),
        sum(any(_named(event)) for event in events),
    )


def _events(parsed: Any) -> Iterator[dict[str, Any]]:
    found = parsed.get("events") if isinstance(parsed, dict) else parsed
    for entry in found if isinstance(found, list) else []:
        event = entry.get("event", entry) if isinstance(entry, dict) else None
        if isinstance(event, dict):
            yield event


def _has_time(event: dict[str, Any], expected: str | None) -> bool:
    metadata = event.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    found = known.get("eventTimestamp", known.get("event_timestamp"))
    if not isinstance(found, str) or not found:
        return False
    try:
        return expected is None or abs(parse_iso(found) - parse_iso(expected)) <= _TOLERANCE
    except (ValueError, OverflowError):
        return False


def _named(event: dict[str, Any]) -> Iterator[bool]:
    """One True for each indicator; a list of things still to look at, because depth is theirs to choose."""
    waiting: list[Any] = [value for key, value in event.items() if key != "metadata"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (True for key, inner in value.items() if key in INDICATORS and inner)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _message(result: _Result, line: str) -> str:
    """The parser quotes the line in its message: that part, and every word of the line, is left out."""
    errors = result.errors or []
    first = errors[0].get("message") if errors and isinstance(errors[0], dict) else (errors or [None])[0]
    message = (result.error.message if result.error else None) or (first if isinstance(first, str) else "")
    told = message.partition("LOG:")[0][:_MAX_MESSAGE].strip()
    names = set(re.findall(r'"([\w.]+)"\s*:', line))

    def shown(word: re.Match[str]) -> str:
        text = word[0].strip(".,:;()")
        hidden = len(text) > 60 or (len(text) > 3 and text not in names and text in line)
        return "…" if hidden else word[0]

    return re.sub(r"[^\s\"'\\{}\[\]=]+", shown, told) or "no message"
