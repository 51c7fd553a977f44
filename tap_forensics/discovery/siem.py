"""One SIEM window → events and threats. Each record is read on its own: a strange one costs only itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from tap_forensics.errors import Unavailable
from tap_forensics.records.event_lines import Event, is_text, read_record, to_event
from tap_forensics.records.ndjson import sanitize_utf8, without_depths
from tap_forensics.storage.state import Threat
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.windows import Window

# A click that went through comes first, then a mail that lies in a mailbox, then what was stopped.
_PRIORITIES = {"clicksPermitted": 0, "messagesDelivered": 1, "messagesBlocked": 2, "clicksBlocked": 2}
_LONGEST_ID = 256
# With this TAP tells where a window ended; lists may be absent if they are empty.
_QUERY_END = "queryEndTime"
# Where JSON is not compact: line ends anywhere (no text holds one), and spaces as its start has them.
_LINE_ENDS = (b"\n", b"\r", b"\t")
_SPACES = (b'": ', b', "')
_START = 4096
# TAP's own events have about five; with any stack, JSON with so many can be read.
_LEVELS = 200
# Finding their partners takes about a second.
_MOST_BRACKETS = 1_000_000

_List = list[msgspec.Raw] | None | msgspec.UnsetType


class _Lists(msgspec.Struct):
    """What else is in the answer must not become values."""

    queryEndTime: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - as TAP writes it
    messagesDelivered: _List = msgspec.UNSET  # noqa: N815 - as TAP writes it
    messagesBlocked: _List = msgspec.UNSET  # noqa: N815 - as TAP writes it
    clicksPermitted: _List = msgspec.UNSET  # noqa: N815 - as TAP writes it
    clicksBlocked: _List = msgspec.UNSET  # noqa: N815 - as TAP writes it


_lists = msgspec.json.Decoder(_Lists)


@dataclass
class Reading:
    """What a window held: how many events, how many entries passed over, the threats by id.

    `records`: the events themselves, where they were wanted. They hold on to the whole answer.
    """

    events: int = 0
    odd: int = 0
    threats: dict[str, Threat] = field(default_factory=dict)
    records: list[Event] = field(default_factory=list, repr=False, compare=False)


def read_window(
    tap: TapClient, window: Window, now: datetime, *, threats: bool = True, events: bool = False
) -> Reading:
    """Asks for one window, for what it holds of threats, of events, or of both.

    Raises as `Tap.siem`; an unreadable body is `Unavailable`. One window at a time: its memory counts as free
    on return, although `records` still hold it.
    """
    answer = tap.siem(window)
    try:
        return Reading() if answer.status == 204 else _reading(_lists_of(answer.body), now, threats, events)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("the answer is not the JSON that TAP documents") from None
    finally:
        answer.release()


def _lists_of(body: bytes) -> _Lists:
    """What is nested so deep that it hides all else gives way to a text."""
    try:
        return _lists.decode(_compact(body))
    except RecursionError:
        if body.count(b"[") + body.count(b"{") > _MOST_BRACKETS:
            raise
        return _lists.decode(_compact(without_depths(body, _LEVELS)))


def _compact(body: bytes) -> bytes:
    """Sound UTF-8 without white space between values; what is that already comes back as it is."""
    body = sanitize_utf8(body)
    spaced = any(mark in body for mark in _LINE_ENDS) or any(mark in body[:_START] for mark in _SPACES)
    return msgspec.json.format(body, indent=-1) if spaced else body


def _reading(lists: _Lists, now: datetime, threats: bool, events: bool) -> Reading:
    if all(getattr(lists, name) is msgspec.UNSET for name in (_QUERY_END, *_PRIORITIES)):
        raise Unavailable("the response has no list of events: it is not what TAP documents")
    reading = Reading()
    for kind in _PRIORITIES:
        for record in getattr(lists, kind) or ():
            reading.events += 1
            fields = read_record(record)
            if not isinstance(fields, dict) or is_text(fields):
                reading.odd += 1
            elif threats:
                _add_threats(kind, fields, now, reading)
            if events and isinstance(fields, dict):
                # Uses up the fields, so it comes last.
                reading.records.append(to_event(kind, record, fields))
    return reading


def _add_threats(kind: str, fields: dict[str, Any], now: datetime, reading: Reading) -> None:
    for entry in _entries(kind, fields, reading):
        _add_threat(entry, _PRIORITIES[kind], now, reading)


def _entries(kind: str, fields: dict[str, Any], reading: Reading) -> list[Any]:
    """A click names its threat itself, a message in a list of its own."""
    if kind.startswith("clicks"):
        return [fields]
    entries = fields.get("threatsInfoMap")
    if isinstance(entries, list):
        return entries
    reading.odd += entries is not None
    return []


def _add_threat(entry: Any, priority: int, now: datetime, reading: Reading) -> None:
    """Both spellings of a field: documented, and seen on live tenants."""
    named = entry if isinstance(entry, dict) else {}
    threat_id = _text(named.get("threatID")) or _text(named.get("threatId"))
    if threat_id is None:
        reading.odd += 1
        return
    campaign = _text(named.get("campaignID")) or _text(named.get("campaignId"))
    known = reading.threats.get(threat_id)
    if known is None:
        reading.threats[threat_id] = Threat(priority, now, now, campaign)
        return
    known.priority = min(known.priority, priority)
    known.campaign = known.campaign or campaign


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_ID else None
