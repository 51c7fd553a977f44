"""SIEM event bytes → their line, and the fingerprint by which an event is known again. Pure.

A line is the event's own bytes with `_eventType` (and `_update`) put behind them. The fingerprint is a key
over what an event says and a version over what TAP changes later.
"""

from __future__ import annotations

import re
import zlib
from hashlib import sha1
from typing import Any, NamedTuple

import msgspec

from tap_forensics.memory_budget import is_heavy_event

# As Proofpoint's TAP SIEM API names its four lists.
KINDS = ("messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Seen on live tenants to change between two reads of one event.
_STATUS, _TIME, _CAMPAIGN = "threatStatus", "threatTime", "campaignID"
# Documented and live spellings of the same field.
_SPELLINGS = (
    ("threatId", "threatID"),
    ("campaignId", "campaignID"),
    ("clusterId", "cluster"),
    ("threatUrl", "threatURL"),
)
_OUR_KEYS = ("_eventType", "_update", "_key")
_LARGEST_KEPT_BYTES = 1024
_EMPTY = re.compile(rb"\{\s*\}")
# Values inside values that are looked into where one of them cannot be decoded.
_LEVELS = 6


def _number(text: str) -> tuple[str, str]:
    """A number with a point keeps its digits: as a float, two could become one, or none."""
    return "number", text


_value = msgspec.json.Decoder(Any, float_hook=_number)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_canonical = msgspec.json.Encoder(order="deterministic").encode


class Fingerprint(NamedTuple):
    """`key` (64 bit) tells an event from any other, `version` (32 bit) its states from one another."""

    key: int
    version: int


class Event(NamedTuple):
    """One event as a compact JSON object, without our own keys."""

    kind: str
    record: bytes | msgspec.Raw
    fingerprint: Fingerprint


def read_record(record: bytes | msgspec.Raw) -> Any:
    """A JSON value, decoded; in it, what cannot be decoded (nested too deep, a number of thousands of digits)
    is its text. One that would need too much memory is only known by its text.
    """
    if not is_heavy_event(record):
        return _readable(record, _LEVELS)
    return _as_text(record) if _begins(record) == b"{" else _digest(record)


def _begins(value: bytes | msgspec.Raw) -> bytes:
    return memoryview(value)[:1].tobytes()


def _readable(value: bytes | msgspec.Raw, levels: int) -> Any:
    try:
        return _value.decode(value)
    except (msgspec.DecodeError, RecursionError):
        begin = _begins(value)
    try:
        if begin == b"{" and levels:
            return {key: _readable(inner, levels - 1) for key, inner in _object.decode(value).items()}
        if begin == b"[" and levels:
            return [_readable(inner, levels - 1) for inner in _items.decode(value)]
    except (msgspec.DecodeError, RecursionError):
        pass  # no level of it can be read
    return _as_text(value) if levels == _LEVELS and begin == b"{" else _digest(value)


def to_event(kind: str, record: bytes | msgspec.Raw, fields: dict[str, Any]) -> Event:
    """The event of a record and what `read_record` gave of it, which is used up."""
    if any([key in fields for key in _OUR_KEYS]):  # noqa: C419 - for each event: a generator costs more
        record = without_our_keys(record)
        fields = read_record(record)
    try:
        return Event(kind, record, fingerprint(kind, fields))
    except RecursionError:
        return Event(kind, record, fingerprint(kind, _as_text(record)))


def is_text(fields: dict[str, Any]) -> bool:
    """Whether nothing of an event could be read, as `read_record` gives it then."""
    return fields.keys() == {""}


def _as_text(record: bytes | msgspec.Raw) -> dict[str, Any]:
    return {"": _digest(record)}


def _digest(value: bytes | msgspec.Raw) -> str:
    """In place of a text that may be as large as the answer."""
    return sha1(memoryview(value), usedforsecurity=False).hexdigest()


class Envelope(NamedTuple):
    """What stands around an event of one kind: its line is `head` + the event without `}` + one of these."""

    head: bytes
    new: bytes
    update: bytes


def envelope(kind: str, shape: str) -> Envelope:
    """For a line of `shape` `api` (`{"messagesDelivered":[{…}]}`) or `flat` (the event alone)."""
    head, end = (f'{{"{kind}":['.encode(), b"}]}") if shape == "api" else (b"", b"}")
    own = f'"_eventType":"{kind}"'.encode()
    return Envelope(head, b"," + own + end, b"," + own + b',"_update":true' + end)


def line_of(event: bytes, around: Envelope, *, update: bool) -> bytes:
    """One line, without its line end. `event` is a JSON object without line ends."""
    tail = around.update if update else around.new
    if _EMPTY.fullmatch(event):
        return around.head + b"{" + tail[1:]
    return around.head + event[:-1] + tail


_MADE = tuple((kind, envelope(kind, shape)) for shape in ("api", "flat") for kind in KINDS)


def read_line(line: bytes) -> tuple[str, bytes] | None:
    """The kind and the event of a line that `line_of` made, in either shape; None for any other line."""
    for kind, (head, *ends) in _MADE:
        for end in ends:
            if line.startswith(head + b"{") and line.endswith(end):
                return kind, line[len(head) : -len(end)] + b"}"
            if line == head + b"{" + end[1:]:
                return kind, b"{}"
    return None


def without_our_keys(event: bytes | msgspec.Raw) -> bytes:
    """The event less what it says under one of our own names, however these are escaped."""
    fields = _object.decode(event)
    return msgspec.json.encode({key: value for key, value in fields.items() if key not in _OUR_KEYS})


def truncate(event: bytes, longest: int, known_by: Fingerprint) -> bytes:
    """An event of at most `longest` bytes: its largest fields give way to a note of their size.

    `_key` keeps the fingerprint, which can no longer be told from what is left.
    """
    key = f"{known_by.key:016x}{known_by.version:08x}"
    if is_heavy_event(event):
        return msgspec.json.encode({"_bytes": len(event), "_key": key})
    fields: dict[str, Any] = dict(_object.decode(event))
    sizes = sorted(((len(bytes(value)), name) for name, value in fields.items()), reverse=True)
    left = len(event)
    for size, name in sizes:
        if left <= longest or size <= _LARGEST_KEPT_BYTES:
            break
        fields[name] = {"_bytes": size}
        left -= size - 32
    fields["_key"] = key
    cut = msgspec.json.encode(fields)
    return cut if len(cut) <= longest else msgspec.json.encode({"_bytes": len(event), "_key": key})


def stored_fingerprint(event: bytes) -> Fingerprint | None:
    """What `cut_to` kept in a line read back."""
    text = _object.decode(event).get("_key") if b'"_key":"' in event else None
    digits = msgspec.json.decode(text, type=str) if text is not None else ""
    return Fingerprint(int(digits[:16], 16), int(digits[16:], 16)) if len(digits) == 24 else None


def fingerprint(kind: str, fields: dict[str, Any]) -> Fingerprint:
    """Of an event as `read_record` gives it; `fields` is used up.

    Lists mean sets: TAP sends `messageParts` and others in any order.
    """
    _respell(fields)
    changing = [_parted(fields)] if kind.startswith("clicks") else _parted_threats(fields)
    for value in fields.values():
        if isinstance(value, list) and len(value) > 1:
            _sort(value)
    # Not to hide anything: of the hashes at hand, sha1 is the quickest at this length that nobody can steer.
    digest = sha1(_canonical((kind, fields)), usedforsecurity=False).digest()
    return Fingerprint(int.from_bytes(digest[:8], "little"), zlib.crc32(_canonical(changing)))


def _parted_threats(fields: dict[str, Any]) -> list[Any]:
    """What the entries of a message's map say that changes later, taken out of them; both in one order."""
    threats = fields.get("threatsInfoMap")
    if not isinstance(threats, list):
        return []
    entries = [entry for entry in threats if isinstance(entry, dict)]
    for entry in entries:
        _respell(entry)
    changing = [_parted(entry) for entry in entries]
    if len(entries) < 2:
        return changing
    pairs = zip(map(_canonical, entries), map(_canonical, changing), strict=True)
    return [said.decode() for _, said in sorted(pairs)]


def _parted(fields: dict[str, Any]) -> Any:
    """Takes out what changes later: TAP's verdict, its time, and the campaign that was found."""
    fields.pop(_TIME, None)
    return fields.pop(_STATUS, None), fields.pop(_CAMPAIGN, None)


def _respell(fields: dict[str, Any]) -> None:
    """One spelling for each field; where both are there and say something, both stay."""
    for documented, live in _SPELLINGS:
        if documented in fields and fields.get(live) is None:
            fields[live] = fields.pop(documented)


def _sort(values: list[Any]) -> None:
    if isinstance(values[0], str):
        try:
            values.sort()
        except TypeError:  # not all of them are texts
            values.sort(key=_canonical)
    else:
        values.sort(key=_canonical)
