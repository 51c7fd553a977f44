"""Report bytes → NDJSON lines: compacted, provenance added, long ones split. Pure."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import msgspec

# SecOps fails the whole feed at a line over 4 MB.
LONGEST_LINE_BYTES = 3_500_000
_LARGEST_HEAD_FIELD_BYTES = 64 * 1024
_LARGEST_HEAD_BYTES = 1024 * 1024
_LONGEST_DISPLAY = 1000
_PIECE_BYTES = 64 * 1024
_MOST_REPAIRS_BYTES = 1024 * 1024
_OUR_KEYS = ("_threatId", "_campaignId", "generated", "_part", "_parts")
_HEAD_KEYS = ("scope", "id", "name", "type", "threatStatus")
_COMMA = ord(",")
_BOM = b"\xef\xbb\xbf"

# A \uD800..\uDFFF escape without its partner: no UTF-8 can hold it, and strict parsers refuse the line.
_SURROGATES = re.compile(
    rb"(?<!\\)((?:\\\\)*+)"
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
# How writers of JSON that is not compact begin; inside a text it costs a needless pass, no more.
_BLANKS = (b'": ', b'", ', b"{ ", b"[ ")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD]")
_LARGEST_SINGLE_ESCAPE = 6
_ROOM_FOR_MARKS = 100
_LOOKED_AT_BYTES = 512
# Quotes, colon and comma.
_BESIDE_FIELD_BYTES = 4

# Where some evidence lies in the report, or what stands in its place.
_Piece = tuple[int, int] | bytes

Fields = dict[str, msgspec.Raw]
_NO_EVIDENCE = msgspec.Raw(b"[]")

_lines = msgspec.json.Encoder()
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Up to and with the next mark of structure that is not inside a text.
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_MARK = re.compile(rb'(?:[^"\[\]{},]++|' + _TEXT + rb")*+[\[\]{},]")
_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _TEXT + rb")*+[\[\]{}]")


@dataclass(frozen=True)
class Provenance:
    """What a line says beside the report: where it comes from and when TAP made it (JSON as it came)."""

    threat_id: str
    campaign_id: str | None
    generated: msgspec.Raw | None


@dataclass(frozen=True)
class Lines:
    """A report's lines, each with its line end, made one at a time; `cut` names what fits into none."""

    lines: Iterator[bytes]
    cut: list[str]


def sanitize_utf8(body: bytes) -> bytes:
    """Bytes that are UTF-8 and hold no lone surrogate escape; no BOM. Sound JSON comes back as it is.

    Raises UnicodeDecodeError where so little is UTF-8 that repairing it would make it much longer.
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
    whole = io.BytesIO()
    for text in _decoded(body, "replace"):
        whole.write(text.encode())
        if whole.tell() > len(body) + _MOST_REPAIRS_BYTES:
            raise UnicodeDecodeError("utf-8", b"", 0, 0, "much of it is something else")
    return whole.getvalue()


def _decoded(body: bytes, errors: str) -> Iterator[str]:
    """Piece by piece: all the text at once would be up to four times as large, and slow to make."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    view = memoryview(body)
    for start in range(0, len(body), _PIECE_BYTES):
        yield decoder.decode(view[start : start + _PIECE_BYTES])
    yield decoder.decode(b"", final=True)


def _without_lone_surrogates(body: bytes) -> bytes:
    """What stands for one is as long as it was: millions must not become millions of pieces."""
    whole = io.BytesIO(body)
    for match in _SURROGATES.finditer(body):
        if len(match[2]) == _LARGEST_SINGLE_ESCAPE:
            whole.seek(match.start(2))
            whole.write(b"\\ufffd")
    return whole.getvalue()


def without_depths(body: bytes, levels: int) -> bytes:
    """JSON in which a text stands for each array or object below so many levels; broken JSON stays broken."""
    shallow = io.BytesIO()
    depth = at = kept = start = 0
    while token := _BRACKET.match(body, at):
        at = token.end()
        if body[at - 1] in b"[{":
            depth += 1
            start = at - 1 if depth == levels + 1 else start
            continue
        if depth == levels + 1:
            digest = sha1(memoryview(body)[start:at], usedforsecurity=False).hexdigest()
            shallow.write(body[kept:start] + b'"nested too deep: %s"' % digest.encode())
            kept = at
        depth -= 1
    shallow.write(body[kept:])
    return shallow.getvalue()


def decode_str(raw: msgspec.Raw) -> str | None:
    """The text that a JSON value is; None for any other value, and for none."""
    begins_as_text = memoryview(raw)[:1].tobytes() == b'"'
    return msgspec.json.decode(raw, type=str) if begins_as_text else None


def decode_object(report: msgspec.Raw) -> Fields | None:
    """A report's fields, each as it came; None for what is no JSON object."""
    try:
        return _object.decode(report)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def report_lines(fields: Fields, provenance: Provenance, shape: str, longest: int) -> Lines:
    """One line, or several with `_part` and `_parts` where one would be over `longest` bytes.

    `shape` is `report` (flat) or `response` (under `reports`). Raises RecursionError where the report is
    nested too deep to be read.
    """
    ours = _provenance(provenance)
    line = _line(fields, ours, shape)
    if len(line) <= longest:
        return Lines(iter([line]), [])
    del line
    cut: list[str] = []
    head = _small_head(fields, cut)
    evidence = msgspec.json.format(fields.get("forensics", _NO_EVIDENCE), indent=-1)
    room = longest - len(_line(head, ours, shape)) - _ROOM_FOR_MARKS
    parts = _packed(evidence, room, cut)
    return Lines(_part_lines(evidence, parts, head, ours, shape), cut)


def _part_lines(
    evidence: bytes, parts: list[list[_Piece]], head: dict[str, Any], ours: dict[str, Any], shape: str
) -> Iterator[bytes]:
    for number, pieces in enumerate(parts, 1):
        items = (piece if isinstance(piece, bytes) else evidence[slice(*piece)] for piece in pieces)
        fields = {**head, "forensics": msgspec.Raw(b"[" + b",".join(items) + b"]")}
        yield _line(fields, {**ours, "_part": number, "_parts": len(parts)}, shape)


def _line(fields: dict[str, Any], ours: dict[str, Any], shape: str) -> bytes:
    """What the report says under one of our own names gives way."""
    own = {key: value for key, value in fields.items() if key not in _OUR_KEYS}
    document = {**own, **ours} if shape == "report" else {**_generated_first(ours), "reports": [own], **ours}
    return _compact(_lines.encode_lines([document]))


def _compact(line: bytes) -> bytes:
    """On one line; an answer that is written without blanks, as TAP's are, is left as it is."""
    start = line[:_LOOKED_AT_BYTES]
    spaced = any(blank in start for blank in _BLANKS) or b"\r" in line or line.find(b"\n") < len(line) - 1
    return msgspec.json.format(line, indent=-1) + b"\n" if spaced else line


def _generated_first(ours: dict[str, Any]) -> dict[str, Any]:
    return {"generated": ours["generated"]} if "generated" in ours else {}


def _provenance(provenance: Provenance) -> dict[str, Any]:
    ours: dict[str, Any] = {"_threatId": provenance.threat_id}
    if provenance.campaign_id is not None:
        ours["_campaignId"] = provenance.campaign_id
    if provenance.generated is not None:
        ours["generated"] = provenance.generated
    return ours


class _Shown(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw()
    display: msgspec.Raw = msgspec.Raw()


def _placeholder(item: bytes, cut: list[str]) -> bytes:
    """In place of one evidence that no line can hold: its type, display and size."""
    try:
        shown = msgspec.json.decode(item, type=_Shown)
    except msgspec.DecodeError:
        shown = _Shown()
    texts = {"type": decode_str(shown.type), "display": decode_str(shown.display)}
    kept = {key: text[:_LONGEST_DISPLAY] for key, text in texts.items() if text}
    cut.append(f"an evidence of type {kept.get('type', 'unknown')} of {len(item)} bytes")
    return msgspec.json.encode({**kept, "_bytes": len(item)})


def _small_head(fields: Fields, cut: list[str]) -> dict[str, Any]:
    """Everything but the evidence, as each part repeats it; what is too large to repeat is left out."""
    head: dict[str, Any] = {}
    size = 0
    left_out = []
    for key, value in fields.items():
        if key == "forensics":
            continue
        length = len(msgspec.json.encode(key)) - 2 + len(bytes(value))
        most = _LARGEST_HEAD_BYTES if key in _HEAD_KEYS else _LARGEST_HEAD_BYTES - size
        if length > min(_LARGEST_HEAD_FIELD_BYTES, most):
            left_out.append((key, length))
        else:
            head[key] = value
            size += length + _BESIDE_FIELD_BYTES
    if left_out:
        largest, length = max(left_out, key=lambda field: field[1])
        others = f" and {len(left_out) - 1} fields beside it" if len(left_out) > 1 else ""
        cut.append(f"the field {largest[:_LONGEST_DISPLAY]} of {length} bytes{others}")
    return head


def _packed(evidence: bytes, room: int, cut: list[str]) -> list[list[_Piece]]:
    """Consecutive items in the fewest groups of at most `room` bytes; at least one group.

    Works on offsets: millions of small items must not become millions of objects.
    """
    groups: list[list[_Piece]] = [[]]
    used = 0
    for start, stop in _elements(evidence):
        note = _placeholder(evidence[start:stop], cut) if stop - start >= room else None
        size = (len(note) if note else stop - start) + 1
        if used and used + size > room:
            groups.append([])
            used = 0
        used += size
        _append(groups[-1], note or (start, stop))
    return groups


def _append(group: list[_Piece], piece: _Piece) -> None:
    """Neighbours in the evidence become one piece."""
    last = group[-1] if group else b""
    if isinstance(piece, tuple) and isinstance(last, tuple) and last[1] + 1 == piece[0]:
        group[-1] = (last[0], piece[1])
    else:
        group.append(piece)


def _elements(array: bytes) -> Iterator[tuple[int, int]]:
    """Where each item of a compact JSON array begins and ends; anything else than an array is one item."""
    if not array.startswith(b"["):
        yield 0, len(array)
        return
    depth = start = at = 1
    while token := (_MARK if depth == 1 else _BRACKET).match(array, at):
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
