"""Report bytes → NDJSON lines: compact, with provenance; long ones are split. Pure."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import msgspec

# A line over 4 MB fails the whole SecOps feed (MaxLogLineSize4MBExceeded).
LONGEST_LINE_BYTES = 3_500_000
_MAX_HEAD_FIELD_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 1024 * 1024
_MAX_DISPLAY_CHARACTERS = 1000
_PIECE_BYTES = 64 * 1024
_MAX_GROWTH_BYTES = 1024 * 1024
_OUR_KEYS = ("_threatId", "_campaignId", "generated", "_part", "_parts")
_HEAD_KEYS = ("scope", "id", "name", "type", "threatStatus")
_COMMA = ord(",")
_BOM = b"\xef\xbb\xbf"

# A \uD800..\uDFFF escape without its partner: UTF-8 cannot encode it, and strict parsers reject the line.
_SURROGATES = re.compile(
    rb"(?<!\\)((?:\\\\)*+)"
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
# Signs of JSON that is not compact; inside a string they only cause one unnecessary pass.
_BLANKS = (b'": ', b'", ', b"{ ", b"[ ")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD]")
_SINGLE_ESCAPE_BYTES = 6
_PART_FIELDS_BYTES = 100
_INSPECTED_BYTES = 512
# Quotes, colon and comma.
_FIELD_PUNCTUATION_BYTES = 4

# The offsets of some evidence in the array, or the bytes that replace it.
_Piece = tuple[int, int] | bytes

Fields = dict[str, msgspec.Raw]
_NO_EVIDENCE = msgspec.Raw(b"[]")

_lines = msgspec.json.Encoder()
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Everything up to the next structural character outside a string, including it.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_STRUCTURAL = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+[\[\]{},]")
_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+[\[\]{}]")


@dataclass(frozen=True)
class Provenance:
    """What a line adds to the report: its origin, and when TAP generated it (raw JSON of the response)."""

    threat_id: str
    campaign_id: str | None
    generated: msgspec.Raw | None


@dataclass(frozen=True)
class Lines:
    """A report's lines, each with its line end, made one at a time; `cut` names what fits in no line."""

    lines: Iterator[bytes]
    cut: list[str]


def sanitize_utf8(body: bytes) -> bytes:
    """The body as UTF-8 without lone surrogate escapes and BOM. Valid JSON is returned unchanged.

    Raises UnicodeDecodeError if the repair would make it longer by over 1 MiB.
    """
    body = body.removeprefix(_BOM)
    if not (body.isascii() or _is_utf8(body)):
        body = _as_utf8(body)
    if b"\\" in body and _SURROGATE_ESCAPE.search(body):
        body = _without_lone_surrogates(body)
    return body


def _is_utf8(body: bytes) -> bool:
    try:
        for _ in _decoded(body, "strict"):
            pass
    except UnicodeDecodeError:
        return False
    return True


def _as_utf8(body: bytes) -> bytes:
    repaired = io.BytesIO()
    for text in _decoded(body, "replace"):
        repaired.write(text.encode())
        if repaired.tell() > len(body) + _MAX_GROWTH_BYTES:
            raise UnicodeDecodeError("utf-8", b"", 0, 0, "too much of it is not UTF-8")
    return repaired.getvalue()


def _decoded(body: bytes, errors: str) -> Iterator[str]:
    """Decodes in pieces: the whole text would need up to four times the memory, and more time."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    view = memoryview(body)
    for start in range(0, len(body), _PIECE_BYTES):
        yield decoder.decode(view[start : start + _PIECE_BYTES])
    yield decoder.decode(b"", final=True)


def _without_lone_surrogates(body: bytes) -> bytes:
    """Overwrites them in place: millions of escapes must not become millions of objects."""
    repaired = io.BytesIO(body)
    for match in _SURROGATES.finditer(body):
        if len(match[2]) == _SINGLE_ESCAPE_BYTES:
            repaired.seek(match.start(2))
            repaired.write(b"\\ufffd")
    return repaired.getvalue()


def without_depths(body: bytes, levels: int) -> bytes:
    """Replaces each array or object below so many levels by a string; invalid JSON stays invalid."""
    shallow = io.BytesIO()
    depth = at = copied_to = start = 0
    while token := _BRACKET.match(body, at):
        at = token.end()
        if body[at - 1] in b"[{":
            depth += 1
            start = at - 1 if depth == levels + 1 else start
            continue
        if depth == levels + 1:
            digest = sha1(memoryview(body)[start:at], usedforsecurity=False).hexdigest()
            shallow.write(body[copied_to:start] + b'"nested too deep: %s"' % digest.encode())
            copied_to = at
        depth -= 1
    shallow.write(body[copied_to:])
    return shallow.getvalue()


def decode_str(raw: msgspec.Raw) -> str | None:
    """The string of a raw JSON value; None for any other value, and for an empty one."""
    is_string = memoryview(raw)[:1].tobytes() == b'"'
    return msgspec.json.decode(raw, type=str) if is_string else None


def decode_object(report: msgspec.Raw) -> Fields | None:
    """A report's fields as raw JSON; None if it is not a JSON object."""
    try:
        return _object.decode(report)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def report_lines(fields: Fields, provenance: Provenance, shape: str, longest: int) -> Lines:
    """One line, or several with `_part` and `_parts` if one would be over `longest` bytes.

    `shape` is `report` (flat) or `response` (under `reports`). Raises RecursionError if the report is nested
    too deep.
    """
    ours = _provenance(provenance)
    line = _line(fields, ours, shape)
    if len(line) <= longest:
        return Lines(iter([line]), [])
    del line
    cut: list[str] = []
    head = _small_head(fields, cut)
    evidence = msgspec.json.format(fields.get("forensics", _NO_EVIDENCE), indent=-1)
    room = longest - len(_line(head, ours, shape)) - _PART_FIELDS_BYTES
    parts = _pack(evidence, room, cut)
    return Lines(_part_lines(evidence, parts, head, ours, shape), cut)


def _part_lines(
    evidence: bytes, parts: list[list[_Piece]], head: dict[str, Any], ours: dict[str, Any], shape: str
) -> Iterator[bytes]:
    for number, pieces in enumerate(parts, 1):
        items = (piece if isinstance(piece, bytes) else evidence[slice(*piece)] for piece in pieces)
        fields = {**head, "forensics": msgspec.Raw(b"[" + b",".join(items) + b"]")}
        yield _line(fields, {**ours, "_part": number, "_parts": len(parts)}, shape)


def _line(fields: dict[str, Any], ours: dict[str, Any], shape: str) -> bytes:
    """Our own fields replace fields of the report that have the same names."""
    report = {key: value for key, value in fields.items() if key not in _OUR_KEYS}
    if shape == "report":
        document = {**report, **ours}
    else:
        document = {**_generated_first(ours), "reports": [report], **ours}
    return _compact(_lines.encode_lines([document]))


def _compact(line: bytes) -> bytes:
    """The JSON on one line; compact JSON, as TAP sends it, is returned unchanged."""
    start = line[:_INSPECTED_BYTES]
    reformat = any(blank in start for blank in _BLANKS) or b"\r" in line or line.find(b"\n") < len(line) - 1
    return msgspec.json.format(line, indent=-1) + b"\n" if reformat else line


def _generated_first(ours: dict[str, Any]) -> dict[str, Any]:
    return {"generated": ours["generated"]} if "generated" in ours else {}


def _provenance(provenance: Provenance) -> dict[str, Any]:
    ours: dict[str, Any] = {"_threatId": provenance.threat_id}
    if provenance.campaign_id is not None:
        ours["_campaignId"] = provenance.campaign_id
    if provenance.generated is not None:
        ours["generated"] = provenance.generated
    return ours


class _Label(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw()
    display: msgspec.Raw = msgspec.Raw()


def _placeholder(item: bytes, cut: list[str]) -> bytes:
    """Replaces an evidence item that fits in no line: its type, display and size."""
    try:
        label = msgspec.json.decode(item, type=_Label)
    except msgspec.DecodeError:
        label = _Label()
    texts = {"type": decode_str(label.type), "display": decode_str(label.display)}
    kept = {key: text[:_MAX_DISPLAY_CHARACTERS] for key, text in texts.items() if text}
    cut.append(f"an evidence item of type {kept.get('type', 'unknown')} of {len(item)} bytes")
    return msgspec.json.encode({**kept, "_bytes": len(item)})


def _small_head(fields: Fields, cut: list[str]) -> dict[str, Any]:
    """The fields without the evidence, which each part repeats; too large ones are left out."""
    head: dict[str, Any] = {}
    size = 0
    left_out = []
    for key, value in fields.items():
        if key == "forensics":
            continue
        length = len(msgspec.json.encode(key)) - 2 + len(bytes(value))
        free = _MAX_HEAD_BYTES if key in _HEAD_KEYS else _MAX_HEAD_BYTES - size
        if length > min(_MAX_HEAD_FIELD_BYTES, free):
            left_out.append((key, length))
        else:
            head[key] = value
            size += length + _FIELD_PUNCTUATION_BYTES
    if left_out:
        largest, length = max(left_out, key=lambda field: field[1])
        others = f" and {len(left_out) - 1} other fields" if len(left_out) > 1 else ""
        cut.append(f"the field {largest[:_MAX_DISPLAY_CHARACTERS]} of {length} bytes{others}")
    return head


def _pack(evidence: bytes, room: int, cut: list[str]) -> list[list[_Piece]]:
    """Consecutive items in the fewest groups of at most `room` bytes; at least one group.

    Works on offsets: millions of small items must not become millions of objects.
    """
    groups: list[list[_Piece]] = [[]]
    used = 0
    for start, stop in _elements(evidence):
        placeholder = _placeholder(evidence[start:stop], cut) if stop - start >= room else None
        size = (len(placeholder) if placeholder else stop - start) + 1
        if used and used + size > room:
            groups.append([])
            used = 0
        used += size
        _append(groups[-1], placeholder or (start, stop))
    return groups


def _append(group: list[_Piece], piece: _Piece) -> None:
    """Adjacent items become one piece."""
    last = group[-1] if group else b""
    if isinstance(piece, tuple) and isinstance(last, tuple) and last[1] + 1 == piece[0]:
        group[-1] = (last[0], piece[1])
    else:
        group.append(piece)


def _elements(array: bytes) -> Iterator[tuple[int, int]]:
    """The start and end of each item of a compact JSON array; any other value is one item."""
    if not array.startswith(b"["):
        yield 0, len(array)
        return
    depth = start = at = 1
    while token := (_STRUCTURAL if depth == 1 else _BRACKET).match(array, at):
        at = token.end()
        mark = array[at - 1]
        if mark in b"[{":
            depth += 1
            continue
        depth -= mark in b"]}"
        if depth == 0 or mark == _COMMA:
            if at - 1 > start:
                yield start, at - 1
            start = at
