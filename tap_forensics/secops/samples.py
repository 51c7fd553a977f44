"""One line of the bucket as SecOps would get it: in the shape it has, or in both shapes of RECORD_SHAPE."""

from __future__ import annotations

import re

import msgspec

from tap_forensics.records.ndjson import Fields, Provenance, decode_object, decode_str, report_lines

SHAPES = ("report", "response")
# The parser is run on one line. The request carries it in Base64, twice.
LONGEST_BYTES = 1_000_000
_ID = rb"[0-9a-fA-F]{64}"


def newest_line(data: bytes, id_field: str) -> bytes | None:
    """The last line of an object that has an id and, if it is a report, evidence; None if there is none."""
    for line in reversed(data.splitlines()):
        if len(line) <= LONGEST_BYTES and line_id(line, id_field) and _has_content(line):
            return line
    return None


def line_id(line: bytes, field: str) -> str | None:
    """The threat id in this field, wherever it is in the line."""
    found = re.search(rb'"%s":\s?"(%s)"' % (field.encode(), _ID), line)
    return found[1].decode().lower() if found else None


def _has_content(line: bytes) -> bool:
    fields = _fields(line)
    evidence = _report(fields).get("forensics")
    return bool(fields) and (evidence is None or bytes(evidence) not in (b"[]", b"null"))


def generated_in(line: bytes) -> str | None:
    """When TAP made the report, as the line says it."""
    fields = _fields(line)
    return decode_str(fields["generated"]) if "generated" in fields else None


def _fields(line: bytes) -> Fields:
    """Empty if the line is no JSON object, or nested too deep."""
    try:
        return decode_object(msgspec.Raw(line)) or {}
    except RecursionError:
        return {}


def both_shapes(line: bytes) -> dict[str, bytes] | None:
    """The report of an evidence line, as the function writes it in each shape; None if there is none."""
    fields = _fields(line)
    report = _report(fields)
    threat_id = decode_str(fields["_threatId"]) if "_threatId" in fields else None
    if not report or threat_id is None:
        return None
    campaign_id = decode_str(fields["_campaignId"]) if "_campaignId" in fields else None
    provenance = Provenance(threat_id, campaign_id, fields.get("generated"))
    made = {shape: report_lines(report, provenance, shape, 2 * LONGEST_BYTES).lines for shape in SHAPES}
    return {shape: next(lines).rstrip(b"\n") for shape, lines in made.items()}


def _report(fields: Fields) -> Fields:
    """Empty if there is none."""
    if "reports" not in fields:
        return fields
    try:
        reports = msgspec.json.decode(fields["reports"], type=list[msgspec.Raw])
        return (decode_object(reports[0]) if reports else None) or {}
    except (msgspec.DecodeError, RecursionError):
        return {}
