"""Lines → records: reports of either shape, their parts joined again, and SIEM events of either shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tap_forensics.cli.source import Line
from tap_forensics.events import KINDS, UNREADABLE
from tap_forensics.ndjson import repaired

_MOST_NAMED = 20


@dataclass
class Tally:
    """What was read and what was passed over; `odd` names the first `(place, why)` of `odd_count`."""

    lines: int = 0
    reports: int = 0
    events: int = 0
    odd_count: int = 0
    odd: list[tuple[str, str]] = field(default_factory=list)

    def pass_over(self, place: str, why: str) -> None:
        self.odd_count += 1
        if len(self.odd) < _MOST_NAMED:
            self.odd.append((place, why))


@dataclass(frozen=True)
class Report:
    """One report. Texts are as they came, None where absent or no text; so are the items of `evidence`.

    `part` is `(number, of how many)` on the line of a split report.
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


@dataclass(frozen=True)
class Event:
    """One SIEM event of a `kind` of `tap_forensics.events.KINDS`."""

    kind: str
    fields: dict[str, Any]


def read_records(lines: Iterable[Line], tally: Tally) -> Iterator[Report | Event]:
    """Every record, counted in `tally`; whatever is odd is counted there too, and never raises."""
    for record in _joined(_parsed(lines, tally), tally):
        if isinstance(record, Report):
            tally.reports += 1
        else:
            tally.events += 1
        yield record


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _parsed(lines: Iterable[Line], tally: Tally) -> Iterator[Report | Event]:
    for line in lines:
        tally.lines += 1
        if line.data is None:
            tally.pass_over(line.place, line.why)
            continue
        try:
            document = msgspec.json.decode(repaired(line.data))
        except (*UNREADABLE, ValueError):
            tally.pass_over(line.place, "not readable as JSON")
            continue
        before = tally.odd_count
        found = list(_records(document, line.place, tally))
        yield from found
        if not found and tally.odd_count == before and not _is_empty_answer(document):
            tally.pass_over(line.place, "neither a report nor an event")


def _records(document: Any, place: str, tally: Tally) -> Iterator[Report | Event]:
    if not isinstance(document, dict):
        return
    if document.get("_eventType") in KINDS:
        yield Event(document["_eventType"], document)
    elif isinstance(document.get("reports"), list):
        for number, report in enumerate(document["reports"]):
            if isinstance(report, dict):
                yield _report(report, document, place, tally)
            else:
                tally.pass_over(place, f"report {number} is no object")
    elif "forensics" in document or "scope" in document:
        yield _report(document, document, place, tally)
    else:
        yield from _events(document, place, tally)


def _events(document: dict[str, Any], place: str, tally: Tally) -> Iterator[Event]:
    for kind in KINDS:
        listed = document.get(kind)
        for number, event in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(event, dict):
                yield Event(kind, event)
            else:
                tally.pass_over(place, f"{kind} {number} is no object")


def _is_empty_answer(document: Any) -> bool:
    """TAP's own way to say that there is nothing: lists without items."""
    return isinstance(document, dict) and any(document.get(key) == [] for key in ("reports", *KINDS))


def _report(own: dict[str, Any], around: dict[str, Any], place: str, tally: Tally) -> Report:
    evidence = own.get("forensics")
    if evidence is not None and not isinstance(evidence, list):
        tally.pass_over(place, "its `forensics` is no list")
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


def _joined(records: Iterable[Report | Event], tally: Tally) -> Iterator[Report | Event]:
    """The parts of a report follow one another in one object; what is there of it is given as one."""
    held: Report | None = None
    for record in records:
        if held is not None and isinstance(record, Report) and _continues(held, record):
            held.evidence.extend(record.evidence)
            held = replace(held, part=record.part)
            continue
        if held is not None:
            yield _ended(held, tally)
            held = None
        if isinstance(record, Report) and record.part is not None:
            if record.part[0] != 1:
                tally.pass_over(record.place, f"part {record.part[0]} without the part before it")
            held = record
        else:
            yield record
    if held is not None:
        yield _ended(held, tally)


def _continues(held: Report, record: Report) -> bool:
    if held.part is None or record.part is None:
        return False
    same = (held.threat_id, held.scope, held.id) == (record.threat_id, record.scope, record.id)
    return same and record.part == (held.part[0] + 1, held.part[1])


def _ended(held: Report, tally: Tally) -> Report:
    if held.part is not None and held.part[0] != held.part[1]:
        tally.pass_over(held.place, f"after part {held.part[0]} of {held.part[1]} the rest is missing")
    return replace(held, part=None)
