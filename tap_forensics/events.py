"""SIEM event bytes → their line, and the fingerprint by which an event is known again. Pure.

A line is the event's own bytes with `_eventType` (and `_update`) put behind them. The fingerprint is a key
over what an event says and a version over what TAP changes later.
"""

from __future__ import annotations

import zlib
from hashlib import sha1
from typing import Any, NamedTuple

import msgspec

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
    known_by: Fingerprint


def read_record(record: bytes | msgspec.Raw) -> Any:
    """A JSON value, decoded; in it, what cannot be decoded (a number of thousands of digits) is its text."""
    try:
        return _value.decode(record)
    except RecursionError:
        return _as_text(record)
    except msgspec.DecodeError:
        text = bytes(record)
        if text.startswith(b"{"):
            return {key: read_record(value) for key, value in _object.decode(text).items()}
        if text.startswith(b"["):
            return [read_record(value) for value in _items.decode(text)]
        return text.decode()


def take_event(kind: str, record: bytes | msgspec.Raw, fields: dict[str, Any]) -> Event:
    """The event of a record and what `read_record` gave of it, which is used up."""
    if any([key in fields for key in _OUR_KEYS]):  # noqa: C419 - for each event: a generator costs more
        record = without_our_keys(record)
        fields = read_record(record)
    try:
        return Event(kind, record, fingerprint(kind, fields))
    except RecursionError:
        return Event(kind, record, fingerprint(kind, _as_text(record)))


def _as_text(record: bytes | msgspec.Raw) -> dict[str, Any]:
    """What is nested too deep here, though it was not where the answer was taken apart, a few calls up."""
    return {"": bytes(record).decode()}


class Tails(NamedTuple):
    """What stands around an event of one kind: its line is `head` + the event without `}` + one of these."""

    head: bytes
    new: bytes
    update: bytes


def tails(kind: str, shape: str) -> Tails:
    """For a line of `shape` `api` (`{"messagesDelivered":[{…}]}`) or `flat` (the event alone)."""
    head, end = (f'{{"{kind}":['.encode(), b"}]}") if shape == "api" else (b"", b"}")
    own = f'"_eventType":"{kind}"'.encode()
    return Tails(head, b"," + own + end, b"," + own + b',"_update":true' + end)


def line_of(event: bytes, around: Tails, *, update: bool) -> bytes:
    """One line, without its line end. `event` is a compact JSON object."""
    tail = around.update if update else around.new
    return around.head + event[:-1] + (tail if len(event) > len(b"{}") else tail[1:])


_MADE = tuple((kind, tails(kind, shape)) for shape in ("api", "flat") for kind in KINDS)


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


def cut_to(event: bytes, longest: int, known_by: Fingerprint) -> bytes:
    """An event of at most `longest` bytes: its largest fields give way to a note of their size.

    `_key` keeps the fingerprint, which can no longer be told from what is left.
    """
    fields: dict[str, Any] = dict(_object.decode(event))
    sizes = sorted(((len(bytes(value)), key) for key, value in fields.items()), reverse=True)
    left = len(event)
    for size, key in sizes:
        if left <= longest or size <= _LARGEST_KEPT_BYTES:
            break
        fields[key] = {"_bytes": size}
        left -= size - 32
    fields["_key"] = f"{known_by.key:016x}{known_by.version:08x}"
    cut = msgspec.json.encode(fields)
    return cut if len(cut) <= longest else msgspec.json.encode({"_bytes": len(event), "_key": fields["_key"]})


def kept_fingerprint(event: bytes) -> Fingerprint | None:
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
