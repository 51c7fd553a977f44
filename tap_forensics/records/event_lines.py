"""SIEM event bytes → their line, and the fingerprint that identifies an event. Pure.

A line is the event's own bytes with `_eventType` (and `_update`) appended. The fingerprint is a key over the
fields that do not change and a version over the fields that TAP changes later.
"""

from __future__ import annotations

import re
import zlib
from hashlib import sha1
from typing import Any, NamedTuple

import msgspec

from tap_forensics.memory_budget import is_heavy_event

# The four lists of Proofpoint's TAP SIEM API, by its documentation.
EVENT_TYPES = ("messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Fields that changed between two reads of one event, as seen on live tenants.
_STATUS, _TIME, _CAMPAIGN = "threatStatus", "threatTime", "campaignID"
# The documented and the live spelling of the same field.
_SPELLINGS = (
    ("threatId", "threatID"),
    ("campaignId", "campaignID"),
    ("clusterId", "cluster"),
    ("threatUrl", "threatURL"),
)
_OUR_KEYS = ("_eventType", "_update", "_key")
_MAX_KEPT_FIELD_BYTES = 1024
_EMPTY = re.compile(rb"\{\s*\}")
# If a value cannot be decoded, its inner values are tried one by one, down to so many levels.
_MAX_LEVELS = 6


def _number(text: str) -> tuple[str, str]:
    """A number with a point keeps its digits: as floats, two different ones could be equal, or overflow."""
    return "number", text


_value = msgspec.json.Decoder(Any, float_hook=_number)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_canonical = msgspec.json.Encoder(order="deterministic").encode


class Fingerprint(NamedTuple):
    """`key` (64 bits) identifies an event, `version` (32 bits) its current state."""

    key: int
    version: int


class Event(NamedTuple):
    """One event: a compact JSON object without our own keys."""

    kind: str
    record: bytes | msgspec.Raw
    fingerprint: Fingerprint


def read_record(record: bytes | msgspec.Raw) -> Any:
    """A decoded JSON value. A digest replaces each value in it that cannot be decoded (nested too deep, a
    number of thousands of digits), and the whole value if it would need too much memory.
    """
    if not is_heavy_event(record):
        return _decode(record, _MAX_LEVELS)
    return _undecoded(record) if _first_byte(record) == b"{" else _digest(record)


def _first_byte(value: bytes | msgspec.Raw) -> bytes:
    return memoryview(value)[:1].tobytes()


def _decode(value: bytes | msgspec.Raw, levels: int) -> Any:
    try:
        return _value.decode(value)
    except (msgspec.DecodeError, RecursionError):
        first = _first_byte(value)
    try:
        if first == b"{" and levels:
            return {key: _decode(inner, levels - 1) for key, inner in _object.decode(value).items()}
        if first == b"[" and levels:
            return [_decode(inner, levels - 1) for inner in _items.decode(value)]
    except (msgspec.DecodeError, RecursionError):
        pass  # not even its inner values can be separated
    return _undecoded(value) if levels == _MAX_LEVELS and first == b"{" else _digest(value)


def to_event(kind: str, record: bytes | msgspec.Raw, fields: dict[str, Any]) -> Event:
    """The event of a record. `fields` is what `read_record` returned for it; it is modified."""
    if any([key in fields for key in _OUR_KEYS]):  # noqa: C419 - for each event: a generator costs more
        record = without_our_keys(record)
        fields = read_record(record)
    try:
        return Event(kind, record, fingerprint(kind, fields))
    except RecursionError:
        return Event(kind, record, fingerprint(kind, _undecoded(record)))


def is_text(fields: dict[str, Any]) -> bool:
    """Whether `read_record` could decode nothing of an event."""
    return fields.keys() == {""}


def _undecoded(record: bytes | msgspec.Raw) -> dict[str, Any]:
    return {"": _digest(record)}


def _digest(value: bytes | msgspec.Raw) -> str:
    """A short stand-in for a value that may be as large as the response."""
    return sha1(memoryview(value), usedforsecurity=False).hexdigest()


class Envelope(NamedTuple):
    """The frame of a line of one kind: `head` + the event without its `}` + `new` or `update`."""

    head: bytes
    new: bytes
    update: bytes


def envelope(kind: str, shape: str) -> Envelope:
    """For a line of `shape` `api` (`{"messagesDelivered":[{…}]}`) or `flat` (the event alone).

    A flat line has `eventType`, too: the newest public PROOFPOINT_MAIL parser tests it.
    """
    head, end = (f'{{"{kind}":['.encode(), b"}]}") if shape == "api" else (b"", b"}")
    our_fields = f'"_eventType":"{kind}"'.encode()
    if shape == "flat":
        our_fields = f'"eventType":"{kind}",'.encode() + our_fields
    return Envelope(head, b"," + our_fields + end, b"," + our_fields + b',"_update":true' + end)


def line_of(event: bytes, around: Envelope, *, update: bool) -> bytes:
    """One line, without its line end. `event` is a JSON object without line ends."""
    tail = around.update if update else around.new
    if _EMPTY.fullmatch(event):
        return around.head + b"{" + tail[1:]
    return around.head + event[:-1] + tail


def _without_event_type(kind: str) -> Envelope:
    """A flat line before version 0.3.0."""
    _, *ends = envelope(kind, "flat")
    return Envelope(b"", *(end.replace(b',"eventType":"%s"' % kind.encode(), b"", 1) for end in ends))


# In this order: the end of an older flat line is the end of a newer one, too.
_ENVELOPES = (
    *((kind, envelope(kind, shape)) for shape in ("api", "flat") for kind in EVENT_TYPES),
    *((kind, _without_event_type(kind)) for kind in EVENT_TYPES),
)


def read_line(line: bytes) -> tuple[str, bytes] | None:
    """The kind and the event of a line from `line_of`, in either shape; None for any other line."""
    for kind, (head, *ends) in _ENVELOPES:
        for end in ends:
            if line.startswith(head + b"{") and line.endswith(end):
                return kind, line[len(head) : -len(end)] + b"}"
            if line == head + b"{" + end[1:]:
                return kind, b"{}"
    return None


def without_our_keys(event: bytes | msgspec.Raw) -> bytes:
    """The event without fields that have one of our own names, even if the name is escaped."""
    fields = _object.decode(event)
    return msgspec.json.encode({key: value for key, value in fields.items() if key not in _OUR_KEYS})


def truncate(event: bytes, longest: int, known_by: Fingerprint) -> bytes:
    """An event of at most `longest` bytes: its largest fields are replaced by their size.

    `_key` stores the fingerprint, which can no longer be computed from the line.
    """
    key = f"{known_by.key:016x}{known_by.version:08x}"
    if is_heavy_event(event):
        return msgspec.json.encode({"_bytes": len(event), "_key": key})
    fields: dict[str, Any] = dict(_object.decode(event))
    sizes = sorted(((len(bytes(value)), name) for name, value in fields.items()), reverse=True)
    length = len(event)
    for size, name in sizes:
        if length <= longest or size <= _MAX_KEPT_FIELD_BYTES:
            break
        fields[name] = {"_bytes": size}
        length -= size - 32
    fields["_key"] = key
    cut = msgspec.json.encode(fields)
    return cut if len(cut) <= longest else msgspec.json.encode({"_bytes": len(event), "_key": key})


def stored_fingerprint(event: bytes) -> Fingerprint | None:
    """The fingerprint that `truncate` stored in an event; None if there is none."""
    text = _object.decode(event).get("_key") if b'"_key":"' in event else None
    digits = msgspec.json.decode(text, type=str) if text is not None else ""
    return Fingerprint(int(digits[:16], 16), int(digits[16:], 16)) if len(digits) == 24 else None


def fingerprint(kind: str, fields: dict[str, Any]) -> Fingerprint:
    """The fingerprint of an event from `read_record`; `fields` is modified.

    Lists count as sets: TAP sends `messageParts` and others in any order.
    """
    _normalize_names(fields)
    variable = [_pop_variable(fields)] if kind.startswith("clicks") else _pop_variable_of_threats(fields)
    for value in fields.values():
        if isinstance(value, list) and len(value) > 1:
            _sort(value)
    # Not for secrecy: of the hashes whose value a sender cannot choose, sha1 is the fastest at this length.
    digest = sha1(_canonical((kind, fields)), usedforsecurity=False).digest()
    return Fingerprint(int.from_bytes(digest[:8], "little"), zlib.crc32(_canonical(variable)))


def _pop_variable_of_threats(fields: dict[str, Any]) -> list[Any]:
    """Removes the variable values from a message's threats and returns them, in an order that is stable."""
    threats = fields.get("threatsInfoMap")
    if not isinstance(threats, list):
        return []
    entries = [entry for entry in threats if isinstance(entry, dict)]
    for entry in entries:
        _normalize_names(entry)
    variable = [_pop_variable(entry) for entry in entries]
    if len(entries) < 2:
        return variable
    pairs = zip(map(_canonical, entries), map(_canonical, variable), strict=True)
    return [values.decode() for _, values in sorted(pairs)]


def _pop_variable(fields: dict[str, Any]) -> Any:
    """Removes what TAP changes later (verdict, its time, campaign); returns verdict and campaign."""
    fields.pop(_TIME, None)
    return fields.pop(_STATUS, None), fields.pop(_CAMPAIGN, None)


def _normalize_names(fields: dict[str, Any]) -> None:
    """Uses one spelling for each field; if both are present with a value, both stay."""
    for documented, live in _SPELLINGS:
        if documented in fields and fields.get(live) is None:
            fields[live] = fields.pop(documented)


def _sort(values: list[Any]) -> None:
    if isinstance(values[0], str):
        try:
            values.sort()
        except TypeError:  # not all of them are strings
            values.sort(key=_canonical)
    else:
        values.sort(key=_canonical)
