"""SIEM event bytes → their line, and the fingerprint by which an event is known again. Pure.

A line is the event's own bytes with `_eventType` (and `_update`) put behind them. The fingerprint is a key
over what an event says and a version over what TAP changes later. `fingerprint` is quick and works on the
bytes; `exact_fingerprint` decodes everything: it is the definition, and takes over where the bytes are odd.
"""

from __future__ import annotations

import re
import zlib
from hashlib import sha1
from typing import Any, NamedTuple

import msgspec

# As Proofpoint's TAP SIEM API names its four lists.
KINDS = ("messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)

# Seen on live tenants to change between two reads of one event.
_STATUS, _TIME, _CAMPAIGN = "threatStatus", "threatTime", "campaignID"
# Documented and live spellings of the same field.
_SPELLINGS = {
    "threatId": "threatID",
    "campaignId": "campaignID",
    "clusterId": "cluster",
    "threatUrl": "threatURL",
}
_OUR_KEYS = ("_eventType", "_update", "_key")
_LARGEST_KEPT_BYTES = 1024

_PARTS, _THREATS = b'"messageParts":[', b'"threatsInfoMap":['
# A list of two texts or more. Quotes inside a text are escaped, so this cannot begin or end inside one.
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_TEXTS = re.compile(rb"\[(" + _TEXT + rb"(?:," + _TEXT + rb")++)\]")

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_NONE = msgspec.Raw()


class Fingerprint(NamedTuple):
    """`key` (64 bit) tells an event from any other, `version` (32 bit) its states from one another."""

    key: int
    version: int


class _Changing(msgspec.Struct, gc=False):
    """What TAP changes later in a click, or in an entry of `threatsInfoMap`."""

    threatStatus: msgspec.Raw = _NONE  # noqa: N815 - TAP's own spelling
    threatTime: msgspec.Raw = _NONE  # noqa: N815 - TAP's own spelling
    campaignID: msgspec.Raw = _NONE  # noqa: N815 - TAP's own spelling
    campaignId: msgspec.Raw = _NONE  # noqa: N815 - TAP's own spelling


_changing = msgspec.json.Decoder(_Changing)
_entries = msgspec.json.Decoder(list[_Changing])


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


def plain_event(record: msgspec.Raw) -> bytes:
    """The bytes of an event without our own keys; what is no object as it is."""
    event = bytes(record)
    return without_our_keys(event) if event.startswith(b"{") else event


def is_suspicious(body: bytes) -> bool:
    """Whether an event in it may hold one of our own keys, perhaps spelled with escapes."""
    return b'"_' in body or (b"\\u" in body and b"\\u00" in body)


def without_our_keys(event: bytes) -> bytes:
    """The event less what it says under one of our own names, however these are escaped."""
    fields = _object.decode(event)
    if not fields.keys() & set(_OUR_KEYS):
        return event
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


def fingerprint(kind: str, event: bytes) -> Fingerprint:
    """Of a compact JSON object in the order of keys that the API writes. Never raises for one."""
    try:
        text, version = _of_click(event) if kind.startswith("clicks") else _of_message(event)
    except UNREADABLE:
        return exact_fingerprint(kind, event)
    # Not to hide anything: of the hashes at hand, sha1 is the quickest at this length that nobody can steer.
    digest = sha1(kind.encode() + text, usedforsecurity=False).digest()
    return Fingerprint(int.from_bytes(digest[:8], "little"), zlib.crc32(version))


def _of_click(event: bytes) -> tuple[bytes, bytes]:
    stable, version = _parted(event, _changing.decode(event))
    return _sorted_texts(stable), version


def _of_message(event: bytes) -> tuple[bytes, bytes]:
    """Raises DecodeError where its lists are odd: the exact way sees to it, in whatever order they are."""
    event, _, parts = _cut_out(event, _PARTS, _items)
    pieces = sorted(map(bytes, parts))
    # Whatever else begins a value sorts before an object.
    if pieces and not pieces[0].startswith(b"{"):
        raise msgspec.DecodeError("a part that is no object")
    event, region, entries = _cut_out(event, _THREATS, _entries)
    version = b""
    if len(entries) == 1:
        stable, version = _parted(region, entries[0])
        pieces.append(stable)
    elif entries:
        found = sorted(_parted(bytes(r), e) for r, e in zip(_items.decode(region), entries, strict=True))
        pieces += [stable for stable, _ in found]
        version = b";".join([version for _, version in found])
    event = event.replace(b'"clusterId":', b'"cluster":')
    return b"\n".join([_sorted_texts(event), *pieces]), version


def _cut_out(event: bytes, name: bytes, decoder: msgspec.json.Decoder[Any]) -> tuple[bytes, bytes, list[Any]]:
    """An event less its list of this name; the list; its items. A list without items stays where it is.

    The list ends at one of the next `}]`; that it decodes proves which: no list is the beginning of another.
    Raises DecodeError where it does not begin and end with an object.
    """
    start = event.find(name)
    if start < 0 or event.startswith(b"]", start + len(name)):
        return event, b"", []
    start += len(name) - 1
    end = start if event.startswith(b"{", start + 1) else len(event)
    while (end := event.find(b"}]", end + 1)) >= 0:
        region = event[start : end + 2]
        try:
            items = decoder.decode(region)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            continue
        return event[:start] + event[end + 2 :], region, items
    raise msgspec.DecodeError("a list that does not begin and end with an object")


def _parted(text: bytes, changing: _Changing) -> tuple[bytes, bytes]:
    """An object's text less what changes later, spelled in one way; and what it said of that."""
    status, campaign = bytes(changing.threatStatus), bytes(changing.campaignID)
    if status:
        text = _less(text, b'"threatStatus":' + status)
    if moment := bytes(changing.threatTime):
        text = _less(text, b'"threatTime":' + moment)
    if campaign:
        text = _less(text, b'"campaignID":' + campaign)
    if other := bytes(changing.campaignId):
        text = _less(text, b'"campaignId":' + other)
        campaign = campaign if campaign not in (b"", b"null") else other
    text = text.replace(b'"threatId":', b'"threatID":').replace(b'"threatUrl":', b'"threatURL":')
    return text, b"%b,%b" % (b"" if status == b"null" else status, b"" if campaign == b"null" else campaign)


def _less(text: bytes, member: bytes) -> bytes:
    """Without this member and one comma beside it."""
    start = text.find(b"," + member)
    if start >= 0:
        return text[:start] + text[start + 1 + len(member) :]
    before, _, after = text.partition(member)
    return before + after.removeprefix(b",")


def _sorted_texts(text: bytes) -> bytes:
    return _TEXTS.sub(_sorted_match, text)


def _sorted_match(match: re.Match[bytes]) -> bytes:
    inside = match[1]
    if b"\\" in inside:
        return b"[" + b",".join(sorted(map(bytes, _items.decode(match[0])))) + b"]"
    return b'["' + b'","'.join(sorted(inside[1:-1].split(b'","'))) + b'"]'


def exact_fingerprint(kind: str, event: bytes) -> Fingerprint:
    """By decoding all of it. What cannot be decoded (a number out of range) counts by its bytes."""
    try:
        fields = _respelled(msgspec.json.decode(event))
        content, changing = _told_apart(kind, fields)
        text = msgspec.json.encode([kind, content], order="deterministic")
        version = msgspec.json.encode(changing)
    except (*UNREADABLE, ValueError, TypeError):
        text, version = kind.encode() + event, b""
    digest = sha1(text, usedforsecurity=False).digest()
    return Fingerprint(int.from_bytes(digest[:8], "little"), zlib.crc32(version))


def _told_apart(kind: str, fields: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """What an event says for good, its lists in order; and what changes later, beside what it belongs to."""
    if kind.startswith("clicks"):
        changing = [fields.pop(_STATUS, None), fields.pop(_CAMPAIGN, None)]
        fields.pop(_TIME, None)
        return {key: _in_order(value) for key, value in fields.items()}, changing
    found = []
    threats = fields.get("threatsInfoMap")
    for entry in threats if isinstance(threats, list) else ():
        stable = _respelled(entry) if isinstance(entry, dict) else entry
        changing = _popped(stable) if isinstance(stable, dict) else []
        found.append((_encoded(stable), _encoded(changing)))
    content = {key: _in_order(value) for key, value in fields.items() if key != "threatsInfoMap"}
    if not isinstance(threats, list):
        return {**content, "threatsInfoMap": threats}, []
    found.sort()
    return {**content, "threatsInfoMap": [s.decode() for s, _ in found]}, [v.decode() for _, v in found]


def _popped(entry: dict[str, Any]) -> list[Any]:
    entry.pop(_TIME, None)
    return [entry.pop(_STATUS, None), entry.pop(_CAMPAIGN, None)]


def _respelled(fields: dict[str, Any]) -> dict[str, Any]:
    """One spelling for each field; where both are there and say something, both stay."""
    told = dict(fields)
    for documented, live in _SPELLINGS.items():
        if documented in told and told.get(live) is None:
            told[live] = told.pop(documented)
    return told


def _in_order(value: Any) -> Any:
    """Lists of texts, and of objects such as `messageParts`, mean sets: TAP sends them in any order."""
    return sorted(value, key=_encoded) if isinstance(value, list) else value


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")
