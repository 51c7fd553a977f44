"""One SIEM window → events and threats. Each record is read separately: a malformed one costs only itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from tap_forensics.errors import Unavailable
from tap_forensics.records.event_lines import Event, is_text, read_record, to_event
from tap_forensics.records.ndjson import sanitize_utf8, without_depths
from tap_forensics.storage.state import Summary, Threat
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.windows import Window

# Permitted clicks come first, then delivered messages, then what was blocked.
_PRIORITIES = {"clicksPermitted": 0, "messagesDelivered": 1, "messagesBlocked": 2, "clicksBlocked": 2}
_MAX_ID_CHARACTERS = 256
_MAX_STATUS_CHARACTERS = 40
# When the message or the click happened: later events show the newer status of a threat.
_EVENT_TIMES = ("messageTime", "clickTime")
# The end of the window, from TAP. Empty lists may be absent.
_QUERY_END = "queryEndTime"
# Signs of JSON that is not compact: line ends anywhere (strings contain none), and spaces near its start.
_LINE_ENDS = (b"\n", b"\r", b"\t")
_SPACES = (b'": ', b', "')
_START_BYTES = 4096
# TAP's own events have about five levels. This many can be decoded with any stack size.
_MAX_DEPTH = 200
# Matching this many brackets takes about a second.
_MAX_BRACKETS = 1_000_000

_List = list[msgspec.Raw] | None | msgspec.UnsetType


class _Lists(msgspec.Struct):
    """Only these fields are decoded; the rest of the response is skipped."""

    queryEndTime: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - as TAP writes it
    messagesDelivered: _List = msgspec.UNSET  # noqa: N815 - as TAP writes it
    messagesBlocked: _List = msgspec.UNSET  # noqa: N815 - as TAP writes it
    clicksPermitted: _List = msgspec.UNSET  # noqa: N815 - as TAP writes it
    clicksBlocked: _List = msgspec.UNSET  # noqa: N815 - as TAP writes it


_lists = msgspec.json.Decoder(_Lists)


@dataclass
class Reading:
    """The content of a window: the number of events, the number of skipped entries, the threats by id.

    `summaries`: for each threat its status in the latest event. `records`: the events themselves, if they
    were requested. They keep the whole response in memory.
    """

    events: int = 0
    odd: int = 0
    threats: dict[str, Threat] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)
    records: list[Event] = field(default_factory=list, repr=False, compare=False)


def read_window(
    client: TapClient, window: Window, now: datetime, *, threats: bool = True, events: bool = False
) -> Reading:
    """Requests one window and returns its threats, its events, or both.

    Raises as `TapClient.siem`; an unreadable body raises `Unavailable`. Call it for one window at a time: the
    memory budget counts its memory as free on return, although `records` still use it.
    """
    response = client.siem(window)
    try:
        if response.status == 204:
            return Reading()
        return _reading(_lists_of(response.body), now, threats, events)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("the response is not the JSON that TAP documents") from None
    finally:
        response.release()


def _lists_of(body: bytes) -> _Lists:
    """If the body is nested too deep to decode, its deepest parts are replaced by a string."""
    try:
        return _lists.decode(_compact(body))
    except RecursionError:
        if body.count(b"[") + body.count(b"{") > _MAX_BRACKETS:
            raise
        return _lists.decode(_compact(without_depths(body, _MAX_DEPTH)))


def _compact(body: bytes) -> bytes:
    """Valid UTF-8 without white space between values. Returns a body that already is so unchanged."""
    body = sanitize_utf8(body)
    spaced = any(mark in body for mark in _LINE_ENDS) or any(mark in body[:_START_BYTES] for mark in _SPACES)
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
                # Last, because it changes the fields.
                reading.records.append(to_event(kind, record, fields))
    return reading


def _add_threats(kind: str, fields: dict[str, Any], now: datetime, reading: Reading) -> None:
    event_time = next((text for name in _EVENT_TIMES if (text := _short_text(fields.get(name)))), "")
    for entry in _entries(kind, fields, reading):
        if threat_id := _add_threat(entry, _PRIORITIES[kind], now, reading):
            # An old event shows a new status too; then only the time at which TAP gave it is later.
            at = max(event_time, _short_text(entry.get("threatTime")))
            seen = Summary(last_seen=now, status=_short_text(entry.get("threatStatus")), event_time=at)
            known = reading.summaries.setdefault(threat_id, seen)
            if at > known.event_time:
                reading.summaries[threat_id] = seen


def _entries(kind: str, fields: dict[str, Any], reading: Reading) -> list[Any]:
    """The objects that name a threat: the click itself, or the entries of a message's list."""
    if kind.startswith("clicks"):
        return [fields]
    entries = fields.get("threatsInfoMap")
    if isinstance(entries, list):
        return entries
    reading.odd += entries is not None
    return []


def _add_threat(entry: Any, priority: int, now: datetime, reading: Reading) -> str | None:
    """Returns the ID. Reads both spellings of a field: the documented one, and that seen on live tenants."""
    fields = entry if isinstance(entry, dict) else {}
    threat_id = _valid_id(fields.get("threatID")) or _valid_id(fields.get("threatId"))
    if threat_id is None:
        reading.odd += 1
        return None
    campaign = _valid_id(fields.get("campaignID")) or _valid_id(fields.get("campaignId"))
    known = reading.threats.get(threat_id)
    if known is None:
        reading.threats[threat_id] = Threat(
            priority=priority, first_seen=now, last_seen=now, campaign=campaign
        )
        return threat_id
    known.priority = min(known.priority, priority)
    known.campaign = known.campaign or campaign
    return threat_id


def _valid_id(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_ID_CHARACTERS else None


def _short_text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_STATUS_CHARACTERS else ""
