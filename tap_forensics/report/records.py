"""Lines → records: reports of either shape, their parts joined again, SIEM events, threat summaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tap_forensics.records.event_lines import EVENT_TYPES, UNREADABLE
from tap_forensics.records.ndjson import sanitize_utf8
from tap_forensics.report.source import Line
from tap_forensics.report.summaries import Summary, summary_of

_MAX_NAMED = 20
# Per line. The longest lines of the function, 3.5 MB of TAP's evidence, have about 120,000.
_MAX_VALUES = 500_000


@dataclass
class Tally:
    """What was read and what was skipped; `odd` has the first `(place, why)` of `odd_count`.

    `without_time`: records that a selection by time leaves out, because they have none.
    """

    lines: int = 0
    reports: int = 0
    events: int = 0
    summaries: int = 0
    without_time: int = 0
    odd_count: int = 0
    odd: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, place: str, why: str) -> None:
        self.odd_count += 1
        if len(self.odd) < _MAX_NAMED:
            self.odd.append((place, why))


@dataclass(frozen=True)
class Report:
    """One report, or the next part of the one before.

    Texts are unchanged, None if absent or not a text. `part` is `(number, of how many)` for a split report.
    A part that `continues` only has more evidence for the record before it, so that a large report is never
    in memory as a whole.
    """

    place: str
    scope: str | None
    id: str | None
    name: str | None
    status: str | None
    threat_id: str | None
    campaign_id: str | None
    generated: str | None
    evidence: list[Any]
    part: tuple[int, int] | None = None
    continues: bool = False


@dataclass(frozen=True)
class EventLine:
    """One SIEM event of a `kind` of `tap_forensics.records.event_lines.EVENT_TYPES`."""

    kind: str
    fields: dict[str, Any]


Record = Report | EventLine | Summary


def read_records(lines: Iterable[Line], tally: Tally) -> Iterator[Record]:
    """Every record. `tally` counts them, and what is invalid, which never raises."""
    for record in _linked(_parsed(lines, tally), tally):
        if isinstance(record, Report):
            tally.reports += not record.continues
        elif isinstance(record, EventLine):
            tally.events += 1
        else:
            tally.summaries += 1
        yield record


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _parsed(lines: Iterable[Line], tally: Tally) -> Iterator[Record]:
    for line in lines:
        tally.lines += 1
        if line.data is None:
            tally.skip(line.place, line.why)
            continue
        if _values(line.data) > _MAX_VALUES:
            tally.skip(line.place, f"more than {_MAX_VALUES:,} values")
            continue
        try:
            document = msgspec.json.decode(sanitize_utf8(line.data))
        except (*UNREADABLE, ValueError):
            tally.skip(line.place, "not valid JSON")
            continue
        before, found = tally.odd_count, False
        for record in _records(document, line.place, tally):
            found = True
            yield record
        if not found and tally.odd_count == before and not _is_empty_answer(document):
            tally.skip(line.place, "neither a report nor an event nor a summary")


def _values(line: bytes) -> int:
    """An upper bound: a line of nothing but values takes 30 times its size in memory."""
    return line.count(b",") + line.count(b"{") + line.count(b"[")


def _records(document: Any, place: str, tally: Tally) -> Iterator[Record]:
    if not isinstance(document, dict):
        return
    if document.get("_eventType") in EVENT_TYPES:
        yield EventLine(document["_eventType"], document)
    elif isinstance(document.get("reports"), list):
        for number, report in enumerate(document["reports"]):
            if isinstance(report, dict):
                yield _report(report, document, place, tally)
            else:
                tally.skip(place, f"report {number} is not an object")
    elif "forensics" in document or "scope" in document:
        yield _report(document, document, place, tally)
    elif summary := summary_of(document):
        yield summary
    else:
        yield from _events(document, place, tally)


def _events(document: dict[str, Any], place: str, tally: Tally) -> Iterator[EventLine]:
    for kind in EVENT_TYPES:
        listed = document.get(kind)
        for number, event in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(event, dict):
                yield EventLine(kind, event)
            else:
                tally.skip(place, f"{kind} {number} is not an object")


def _is_empty_answer(document: Any) -> bool:
    """How TAP answers if there is nothing: with empty lists."""
    return isinstance(document, dict) and any(document.get(key) == [] for key in ("reports", *EVENT_TYPES))


def _report(own: dict[str, Any], around: dict[str, Any], place: str, tally: Tally) -> Report:
    evidence = own.get("forensics")
    if evidence is not None and not isinstance(evidence, list):
        tally.skip(place, "its `forensics` is not a list")
    return Report(
        place=place,
        scope=text_or_none(own.get("scope")),
        id=text_or_none(own.get("id")),
        name=text_or_none(own.get("name")),
        status=text_or_none(own.get("threatStatus")),
        threat_id=text_or_none(around.get("_threatId")),
        campaign_id=text_or_none(around.get("_campaignId")),
        generated=text_or_none(around.get("generated")),
        evidence=evidence if isinstance(evidence, list) else [],
        part=_part(around),
    )


def _part(around: dict[str, Any]) -> tuple[int, int] | None:
    number, count = around.get("_part"), around.get("_parts")
    return (number, count) if isinstance(number, int) and isinstance(count, int) else None


def _linked(records: Iterable[Record], tally: Tally) -> Iterator[Record]:
    """Joins the parts of a report, which follow one another in one object, and notes missing ones."""
    before: Report | None = None
    for record in records:
        part = record if isinstance(record, Report) and record.part is not None else None
        continues = before is not None and part is not None and _continues(before, part)
        if not continues:
            _note_missing(before, part, tally)
        yield replace(part, continues=True) if part is not None and continues else record
        before = part
    _note_missing(before, None, tally)


def _note_missing(before: Report | None, after: Report | None, tally: Tally) -> None:
    if before is not None and before.part is not None and before.part[0] != before.part[1]:
        tally.skip(before.place, f"after part {before.part[0]} of {before.part[1]} the rest is missing")
    if after is not None and after.part is not None and after.part[0] != 1:
        tally.skip(after.place, f"part {after.part[0]} without the part before it")


def _continues(before: Report, part: Report) -> bool:
    if before.part is None or part.part is None:
        return False
    same = (before.threat_id, before.scope, before.id) == (part.threat_id, part.scope, part.id)
    return same and part.part == (before.part[0] + 1, before.part[1])
