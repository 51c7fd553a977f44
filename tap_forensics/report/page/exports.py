"""The malicious indicators of all reports as a list, as CSV and as a STIX 2.1 bundle."""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain

import stix2
from stix2.v21 import Identity
from stix2.v21 import Indicator as StixIndicator

from tap_forensics.clock import iso
from tap_forensics.report.indicators import INDICATOR_TYPES, Indicator
from tap_forensics.report.page.findings import ThreatEntry
from tap_forensics.report.page.shown import shown_indicator

_MOST_REFERENCES = 20
_OF_SUMMARIES = ("severity", "actors", "families", "malware", "techniques")
_COLUMNS = (
    "type",
    "indicator",
    "defanged",
    "reports",
    "report_ids",
    "campaign_ids",
    "first_seen",
    "found_in",
    "status",
    *_OF_SUMMARIES,
)
# Statuses of withdrawn reports, in lower case.
_WITHDRAWN = {"falsepositive": "benign", "cleared": "unknown"}
# https://owasp.org/www-community/attacks/CSV_Injection. The last four are full-width: Excel in Japan. If
# the list separator is not a comma, a spreadsheet splits a line at every such sign, quoted or not.
_SIGN = "[=+@\uff1d\uff0b\uff0d\uff20-]"
_BEGINS_FORMULA = re.compile(rf'(^(?=[\s"]*+{_SIGN})|[;|\t\r\n][\s"]*+(?={_SIGN}))')
_BEGINS_ODD = ("\t", "\r", "\n")
# The same indicator has the same id in each export.
_NAMESPACE = uuid.UUID("2f0f4a2e-6a0c-5d6f-9d0b-3f8f6d3f8b11")
_IDENTITY_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
_PATHS: dict[str, tuple[str, list[object]]] = {
    "sha256": ("file", ["hashes", "SHA-256"]),
    "md5": ("file", ["hashes", "MD5"]),
    "url": ("url", ["value"]),
    "domain": ("domain-name", ["value"]),
    "mutex": ("mutex", ["name"]),
}


@dataclass
class ListedIndicator:
    """One malicious indicator: the numbers of its entries, the fields it was found in, and the statuses of
    the threats.
    """

    kind: str
    parts: tuple[str, ...]
    entries: list[int] = field(default_factory=list)
    fields: dict[str, None] = field(default_factory=dict)
    first_seen: datetime | None = None
    statuses: dict[str, None] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """`active` if one of them is; empty if none is known, as for a campaign."""
        active = next((status for status in self.statuses if status.lower() == "active"), None)
        return active or " ".join(self.statuses)

    @property
    def value(self) -> str:
        return "\\".join(self.parts)


def list_indicators(entries: Sequence[ThreatEntry], *, withdrawn: bool = False) -> list[ListedIndicator]:
    """In the order of `INDICATOR_TYPES`, then by number of reports.

    Indicators of reports that TAP withdrew (false positive or cleared) are only listed with `withdrawn`,
    because people block what is listed. One report that is not withdrawn is enough.
    """
    listed: dict[tuple[str, tuple[str, ...]], ListedIndicator] = {}
    for number, entry in enumerate(entries):
        if withdrawn or not _is_withdrawn(entry):
            for indicator in entry.indicators:
                _add(listed, indicator, number, entry)
    return sorted(
        listed.values(), key=lambda one: (INDICATOR_TYPES.index(one.kind), -len(one.entries), one.value)
    )


def _add(
    listed: dict[tuple[str, tuple[str, ...]], ListedIndicator],
    indicator: Indicator,
    number: int,
    entry: ThreatEntry,
) -> None:
    key = (indicator.kind, indicator.parts)
    one = listed.setdefault(key, ListedIndicator(*key))
    one.fields[indicator.field] = None
    if entry.status:
        one.statuses[entry.status] = None
    if not one.entries or one.entries[-1] != number:
        one.entries.append(number)
    if entry.generated and (one.first_seen is None or entry.generated < one.first_seen):
        one.first_seen = entry.generated


def left_out(entries: Sequence[ThreatEntry], indicators: Sequence[ListedIndicator]) -> Counter[str]:
    """How many indicators are not listed because TAP withdrew their reports, by status."""
    listed = {(one.kind, one.parts) for one in indicators}
    others: dict[tuple[str, tuple[str, ...]], str] = {}
    for entry in filter(_is_withdrawn, entries):
        for indicator in entry.indicators:
            if (key := (indicator.kind, indicator.parts)) not in listed:
                others.setdefault(key, entry.status)
    return Counter(others.values())


def _is_withdrawn(entry: ThreatEntry) -> bool:
    return entry.status.lower() in _WITHDRAWN


def csv_text(indicators: Sequence[ListedIndicator], entries: Sequence[ThreatEntry]) -> str:
    """One row per indicator, with the real value and the defanged one.

    A ' is put before whatever a spreadsheet would read as a formula: a cell, or the text after a `;` in it.
    """
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for one in indicators:
        writer.writerow([_no_formula(cell) for cell in _cells(one, entries)])
    return out.getvalue()


def _cells(one: ListedIndicator, entries: Sequence[ThreatEntry]) -> list[str]:
    held_by = [entries[number] for number in one.entries[:_MOST_REFERENCES]]
    campaigns = dict.fromkeys(entry.campaign_id for entry in held_by if entry.campaign_id)
    return [
        one.kind,
        one.value,
        shown_indicator(one.kind, one.value),
        str(len(one.entries)),
        " ".join(entry.report_id for entry in held_by),
        " ".join(campaigns),
        iso(one.first_seen) if one.first_seen else "",
        " ".join(one.fields),
        one.status,
        *(_of_summaries(held_by, name) for name in _OF_SUMMARIES),
    ]


def _of_summaries(entries: Sequence[ThreatEntry], name: str) -> str:
    """What the summaries of these threats say, each text once."""
    texts: dict[str, None] = dict.fromkeys(getattr(entry.summary, name) for entry in entries)
    return ", ".join(text for text in texts if text)


def _no_formula(cell: str) -> str:
    cell = _BEGINS_FORMULA.sub(r"\1'", cell)
    return f"'{cell}" if cell.startswith(_BEGINS_ODD) else cell


def stix_text(indicators: Sequence[ListedIndicator], entries: Sequence[ThreatEntry], made: datetime) -> str:
    """A bundle of the producer's identity and all indicators; `made` replaces an unknown time."""
    producer = Identity(
        id=f"identity--{uuid.uuid5(_NAMESPACE, 'identity')}",
        created=_IDENTITY_CREATED,
        modified=_IDENTITY_CREATED,
        name="tap-forensics",
        identity_class="system",
    )
    found = (_stix_indicator(one, entries, producer.id, made) for one in indicators)
    # One at a time: objects need ten times as much memory as their text.
    objects = ",".join(one.serialize() for one in chain([producer], found))
    return f'{{"type":"bundle","id":"bundle--{uuid.uuid4()}","objects":[{objects}]}}'


def _stix_indicator(
    one: ListedIndicator, entries: Sequence[ThreatEntry], producer_id: str, made: datetime
) -> StixIndicator:
    seen = one.first_seen or made
    held_by = [entries[number] for number in one.entries[:_MOST_REFERENCES]]
    return StixIndicator(
        id=f"indicator--{uuid.uuid5(_NAMESPACE, f'{one.kind} {one.value}')}",
        created_by_ref=producer_id,
        created=seen,
        modified=seen,
        valid_from=seen,
        name=shown_indicator(one.kind, one.value),
        description=f"Malicious in {len(one.entries)} Proofpoint TAP report(s), as {', '.join(one.fields)}",
        indicator_types=[_WITHDRAWN.get(one.status.lower(), "malicious-activity")],
        pattern=str(_pattern(one)),
        pattern_type="stix",
        pattern_version="2.1",
        external_references=[
            {
                "source_name": f"proofpoint-tap-{'campaign' if e.is_campaign else 'threat'}",
                "external_id": e.report_id,
            }
            for e in held_by
        ],
        **_labels(held_by),
    )


def _labels(entries: Sequence[ThreatEntry]) -> dict[str, list[str]]:
    """What the summaries say, such as `actors: TA-example`; STIX allows no empty list."""
    texts = {name: _of_summaries(entries, name) for name in _OF_SUMMARIES}
    labels = [f"{name}: {text}" for name, text in texts.items() if text]
    return {"labels": labels} if labels else {}


def _pattern(one: ListedIndicator) -> stix2.ObservationExpression:
    if one.kind in _PATHS:
        return stix2.ObservationExpression(_equal(*_PATHS[one.kind], one.value))
    if one.kind == "ip":
        return stix2.ObservationExpression(
            _equal("ipv6-addr" if ":" in one.value else "ipv4-addr", ["value"], one.value)
        )
    return stix2.ObservationExpression(_of_registry(one) if one.kind == "registry" else _of_path(one.value))


def _of_registry(one: ListedIndicator) -> stix2.AndBooleanExpression | stix2.EqualityComparisonExpression:
    key = _equal("windows-registry-key", ["key"], one.parts[0])
    if len(one.parts) == 1:
        return key
    name = _equal(
        "windows-registry-key", [stix2.ListObjectPathComponent("values", "*"), "name"], one.parts[1]
    )
    return stix2.AndBooleanExpression([key, name])


def _of_path(value: str) -> stix2.AndBooleanExpression | stix2.EqualityComparisonExpression:
    cut = max(value.rfind("\\"), value.rfind("/"))
    folder, name = value[: cut + 1], value[cut + 1 :]
    if not folder or not name:
        return _equal("file", ["name"], value)
    inside = [stix2.ReferenceObjectPathComponent("parent_directory_ref"), "path"]
    return stix2.AndBooleanExpression(
        [_equal("file", ["name"], name), _equal("file", inside, folder[:-1] or folder)]
    )


def _equal(kind: str, path: list[object], value: str) -> stix2.EqualityComparisonExpression:
    return stix2.EqualityComparisonExpression(stix2.ObjectPath(kind, path), stix2.StringConstant(value))
