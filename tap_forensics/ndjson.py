"""Report bytes → NDJSON lines: compacted, provenance added, long ones split. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

# SecOps fails the whole feed at a line over 4 MB.
LONGEST_LINE_BYTES = 3_500_000
_LARGEST_HEAD_FIELD_BYTES = 64 * 1024
_LARGEST_HEAD_BYTES = 1024 * 1024
_LONGEST_DISPLAY = 1000
_OUR_KEYS = ("_threatId", "_campaignId", "generated", "_part", "_parts")
_HEAD_KEYS = ("scope", "id", "name", "type", "threatStatus")
_BOM = b"\xef\xbb\xbf"

# A \uD800..\uDFFF escape without its partner: no UTF-8 can hold it, and strict parsers refuse the line.
_SURROGATES = re.compile(
    rb"(?<!\\)((?:\\\\)*)"
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_LARGEST_SINGLE_ESCAPE = 6

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True)
class Provenance:
    """What a line says beside the report: where it comes from and when TAP made it (JSON as it came)."""

    threat_id: str
    campaign_id: str | None
    generated: msgspec.Raw | None


@dataclass(frozen=True)
class Lines:
    """A report's lines, each with its line end; `cut` names what was too large for any line."""

    lines: list[bytes]
    cut: list[str]


def repaired(body: bytes) -> bytes:
    """Bytes that are UTF-8 and hold no lone surrogate escape; no BOM. Sound JSON comes back as it is."""
    body = body.removeprefix(_BOM)
    try:
        body.decode()
    except UnicodeDecodeError:
        body = body.decode("utf-8", "replace").encode()
    if b"\\ud" in body or b"\\uD" in body:
        body = _SURROGATES.sub(_without_lone_surrogate, body)
    return body


def _without_lone_surrogate(match: re.Match[bytes]) -> bytes:
    lone = len(match[2]) == _LARGEST_SINGLE_ESCAPE
    return match[1] + (b"\\ufffd" if lone else match[2])


def report_lines(report: msgspec.Raw, provenance: Provenance, shape: str, longest: int) -> Lines:
    """One line, or several with `_part` and `_parts` where one would be over `longest` bytes.

    `report` is a JSON object. `shape` is `report` (flat) or `response` (under `reports`).
    """
    fields = _object.decode(msgspec.json.format(report, indent=-1))
    line = _line(fields, _provenance(provenance), shape)
    if len(line) <= longest:
        return Lines([line], [])
    cut: list[str] = []
    evidence = _evidence(fields, longest // 2, cut)
    head = _small_head(fields, cut)
    parts = _packed(evidence, longest - len(_line(head, _provenance(provenance), shape)) - 100)
    marks = [{"_part": i, "_parts": len(parts)} for i in range(1, len(parts) + 1)]
    return Lines(
        [
            _line({**head, "forensics": part}, {**_provenance(provenance), **mark}, shape)
            for part, mark in zip(parts, marks, strict=True)
        ],
        cut,
    )


def _line(fields: dict[str, Any], ours: dict[str, Any], shape: str) -> bytes:
    """What the report says under one of our own names gives way."""
    own = {key: value for key, value in fields.items() if key not in _OUR_KEYS}
    document = {**own, **ours} if shape == "report" else {**_generated_first(ours), "reports": [own], **ours}
    return msgspec.json.encode(document) + b"\n"


def _generated_first(ours: dict[str, Any]) -> dict[str, Any]:
    return {"generated": ours["generated"]} if "generated" in ours else {}


def _provenance(provenance: Provenance) -> dict[str, Any]:
    ours: dict[str, Any] = {"_threatId": provenance.threat_id}
    if provenance.campaign_id is not None:
        ours["_campaignId"] = provenance.campaign_id
    if provenance.generated is not None:
        ours["generated"] = provenance.generated
    return ours


def _evidence(fields: dict[str, msgspec.Raw], largest: int, cut: list[str]) -> list[msgspec.Raw]:
    """The report's evidence, one item an element; an item over `largest` bytes becomes a note of itself."""
    try:
        items = _array.decode(fields.get("forensics", msgspec.Raw(b"[]")))
    except msgspec.ValidationError:
        items = [fields["forensics"]]
    return [item if len(bytes(item)) <= largest else _note(item, cut) for item in items]


class _Shown(msgspec.Struct):
    type: Any = None
    display: Any = None


def _note(item: msgspec.Raw, cut: list[str]) -> msgspec.Raw:
    """In place of one evidence that no line can hold: its type, display and size."""
    try:
        shown = msgspec.json.decode(item, type=_Shown)
    except (msgspec.DecodeError, RecursionError):
        shown = _Shown()
    size = len(bytes(item))
    texts = {"type": shown.type, "display": shown.display}
    kept = {k: v[:_LONGEST_DISPLAY] for k, v in texts.items() if isinstance(v, str)}
    cut.append(f"an evidence of type {kept.get('type', 'unknown')} of {size} bytes")
    return msgspec.Raw(msgspec.json.encode({**kept, "_bytes": size}))


def _small_head(fields: dict[str, msgspec.Raw], cut: list[str]) -> dict[str, Any]:
    """Everything but the evidence, as each part repeats it; what is too large to repeat is left out."""
    head: dict[str, Any] = {}
    size = 0
    for key, value in fields.items():
        length = len(key) + len(bytes(value))
        if key == "forensics":
            continue
        if length > _LARGEST_HEAD_FIELD_BYTES or (
            size + length > _LARGEST_HEAD_BYTES and key not in _HEAD_KEYS
        ):
            cut.append(f"the field {key[:_LONGEST_DISPLAY]} of {length} bytes")
            continue
        head[key] = value
        size += length
    return head


def _packed(items: list[msgspec.Raw], room: int) -> list[list[msgspec.Raw]]:
    """Consecutive items in the fewest groups of at most `room` bytes; at least one group."""
    groups: list[list[msgspec.Raw]] = [[]]
    used = 0
    for item in items:
        size = len(bytes(item)) + 1
        if groups[-1] and used + size > room:
            groups.append([])
            used = 0
        groups[-1].append(item)
        used += size
    return groups
