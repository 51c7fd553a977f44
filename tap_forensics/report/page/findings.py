"""Records → what the page shows: reports, their evidence as displayed text, and its indicators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from tap_forensics.report import fields
from tap_forensics.report.indicators import Indicator, indicators_in
from tap_forensics.report.page.shown import label, shown_value
from tap_forensics.report.records import EventLine, Record, Report, text_or_none
from tap_forensics.report.source import SourceFault
from tap_forensics.report.summaries import Names, Summary, SummaryIndex

MOST_ROWS = 500
MOST_FIELDS = 60
MOST_INDICATORS = 2000
MALICIOUS, OTHER, UNKNOWN = 1, 0, 2
MOST_WEIGHT = 400_000_000
_LONGEST_PLATFORMS = 160
_MOST_KINDS = 200
# Measured: bytes that each needs until the page and its exports are written.
_ENTRY_WEIGHT, _FIELD_WEIGHT, _INDICATOR_WEIGHT = 3000, 150, 2500
_SIGHTING_WEIGHT, _MOMENT_WEIGHT = 600, 150
_OWN_FIELDS = frozenset(("type", "malicious", "what", "engine", "platforms", "display"))
_NO_NAME = "(no name)"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class TooMuch(SourceFault):
    """SOURCE has more than fits on one page."""


class ShownSummary(NamedTuple):
    """A threat's summary as displayed text: all values of one kind are joined."""

    severity: str = ""
    category: str = ""
    actors: str = ""
    families: str = ""
    malware: str = ""
    techniques: str = ""
    brands: str = ""


class Row(NamedTuple):
    """One item of evidence as displayed text; `told` are (field, text)."""

    kind: str
    verdict: int
    engine: str
    platform: str
    told: list[tuple[str, str]]


@dataclass
class ThreatEntry:
    """The newest report of one threat or campaign.

    `rows` has the malicious items first, at most `MOST_ROWS`. `not_listed` counts the values of malicious
    items that are not valid indicators, and those beyond `MOST_INDICATORS`.
    """

    report_id: str
    is_campaign: bool
    name: str
    status: str
    campaign_id: str | None
    generated: datetime | None
    rows: list[Row]
    kinds: Counter[tuple[str, bool]]
    indicators: list[Indicator]
    not_listed: int
    classification: str = ""
    seen: Counter[str] = field(default_factory=Counter)
    summary: ShownSummary = field(default_factory=ShownSummary)

    @property
    def malicious(self) -> int:
        return sum(count for (_, is_malicious), count in self.kinds.items() if is_malicious)


@dataclass
class Sighting:
    """What the events say about one threat."""

    seen: Counter[str] = field(default_factory=Counter)
    campaign_id: str | None = None
    classification: str = ""
    status: str = ""
    is_update: bool = False


@dataclass
class Findings:
    """`moments` are the times of events, by kind. `older` counts reports that a newer one replaced. `weight`
    is roughly the memory, in bytes, that the entries, their page and exports need. `summaries`: by threat.
    """

    entries: list[ThreatEntry] = field(default_factory=list)
    campaigns: dict[str, str] = field(default_factory=dict)
    moments: list[tuple[datetime, str]] = field(default_factory=list)
    older: int = 0
    without_report: int = 0
    weight: int = 0
    summaries: SummaryIndex = field(default_factory=SummaryIndex)


def find(records: Iterable[Record], *, malicious_only: bool) -> Findings:
    """Entries in an analyst's order: malicious evidence first, then clicks let through, then newest.

    Raises `TooMuch`.
    """
    findings = Findings()
    newest: dict[tuple[bool, str], ThreatEntry] = {}
    sightings: dict[str, Sighting] = {}
    last: ThreatEntry | None = None
    for record in records:
        if isinstance(record, EventLine):
            _take_event(record, findings, sightings)
        elif isinstance(record, Summary):
            # The last one is the newest.
            findings.summaries.add(label(record.threat_id), record)
        elif record.continues and last:
            _extend(last, _entry(record, malicious_only), findings)
        else:
            last = _entry(record, malicious_only)
            _keep_newer(last, newest, findings)
        _refuse_too_much(findings, sightings)
    _join(findings, newest, sightings)
    return findings


def _keep_newer(entry: ThreatEntry, newest: dict[tuple[bool, str], ThreatEntry], findings: Findings) -> None:
    key = (entry.is_campaign, entry.report_id)
    known = newest.get(key)
    findings.older += known is not None
    if known is None or (entry.generated or _LONG_AGO) >= (known.generated or _LONG_AGO):
        findings.weight += _weight(entry) - (_weight(known) if known else 0)
        newest[key] = entry


def _extend(entry: ThreatEntry, more: ThreatEntry, findings: Findings) -> None:
    """Adds a further part of the same report."""
    before = _weight(entry)
    malicious_first = sorted([*entry.rows, *more.rows], key=lambda row: row.verdict != MALICIOUS)
    indicators = [*entry.indicators, *more.indicators]
    entry.rows = malicious_first[:MOST_ROWS]
    entry.kinds = _few(entry.kinds + more.kinds)
    entry.indicators = indicators[:MOST_INDICATORS]
    entry.not_listed += more.not_listed + max(0, len(indicators) - MOST_INDICATORS)
    findings.weight += _weight(entry) - before


def _weight(entry: ThreatEntry) -> int:
    shown = sum(_FIELD_WEIGHT + 4 * len(text) for row in entry.rows for _, text in row.told)
    listed = sum(_INDICATOR_WEIGHT + 6 * len(indicator.value) for indicator in entry.indicators)
    return _ENTRY_WEIGHT + shown + listed


def _refuse_too_much(findings: Findings, sightings: dict[str, Sighting]) -> None:
    seen = _SIGHTING_WEIGHT * len(sightings) + _MOMENT_WEIGHT * len(findings.moments)
    seen += findings.summaries.weight
    if findings.weight + seen > MOST_WEIGHT:
        raise TooMuch(
            "SOURCE has more than fits on one page: give a part of it (a prefix such as "
            "gs://BUCKET/tap-forensics/tap_forensics_20260304), or --malicious-only"
        )


def _join(
    findings: Findings, newest: dict[tuple[bool, str], ThreatEntry], sightings: dict[str, Sighting]
) -> None:
    for (is_campaign, name), entry in newest.items():
        if is_campaign:
            findings.campaigns[name] = entry.name
            continue
        _add_summary(entry, findings.summaries.get(name))
        if sighting := sightings.get(name):
            entry.seen, entry.classification = sighting.seen, sighting.classification
            entry.campaign_id = entry.campaign_id or sighting.campaign_id
            if sighting.is_update or not entry.status:
                entry.status = sighting.status
    findings.entries = sorted(newest.values(), key=_urgency, reverse=True)
    findings.without_report = len(
        sightings.keys() - {name for is_campaign, name in newest if not is_campaign}
    )


def _add_summary(entry: ThreatEntry, summary: Summary | None) -> None:
    if summary is None:
        return
    of_names = (summary.actors, summary.families, summary.malware, summary.techniques, summary.brands)
    entry.summary = ShownSummary(
        label(summary.severity_words()), label(summary.category), *map(_joined, of_names)
    )
    entry.status = entry.status or label(summary.status)
    if entry.name == _NO_NAME and summary.name:
        entry.name = shown_value("name", summary.name)


def _joined(names: Names) -> str:
    """The names; where there is none, the id."""
    return ", ".join(dict.fromkeys(label(name or known_by) for known_by, name in names))


def _urgency(entry: ThreatEntry) -> tuple[bool, bool, datetime, str]:
    return (
        entry.malicious > 0,
        entry.seen["clicksPermitted"] > 0,
        entry.generated or _LONG_AGO,
        entry.report_id,
    )


def _entry(report: Report, malicious_only: bool) -> ThreatEntry:
    items = [item if isinstance(item, dict) else {"note": item} for item in report.evidence]
    malicious = [item for item in items if item.get("malicious") is True]
    others = [] if malicious_only else [item for item in items if item.get("malicious") is not True]
    found = [indicator for item in malicious for indicator in indicators_in(item)]
    valid = [indicator for indicator in found if indicator is not None][:MOST_INDICATORS]
    is_campaign = report.scope == "CAMPAIGN"
    report_id = report.id or report.threat_id or report.place
    return ThreatEntry(
        label(report_id),
        is_campaign,
        shown_value("name", report.name or _NO_NAME),
        label(report.status or ""),
        label(report.id if is_campaign and report.id else report.campaign_id or "") or None,
        fields.moment(report.generated),
        [_row(item) for item in (*malicious, *others)[:MOST_ROWS]],
        _few(Counter((_kind(item), item.get("malicious") is True) for item in items)),
        valid,
        len(found) - len(valid),
    )


def _row(item: dict[str, Any]) -> Row:
    what = item.get("what")
    told = {**what} if isinstance(what, dict) else {"what": what}
    told |= {
        key: value for key, value in item.items() if key not in _OWN_FIELDS and (key, value) != ("time", 0)
    }
    said = {key: value for key, value in told.items() if value not in (None, "", [])}
    pairs = [(label(key), shown_value(key, value)) for key, value in islice(said.items(), MOST_FIELDS)]
    if len(said) > MOST_FIELDS:
        pairs.append(("further fields", f"{len(said) - MOST_FIELDS:,}"))
    display = text_or_none(item.get("display"))
    if not pairs and display:
        pairs = [("display", shown_value("display", display))]
    malicious = item.get("malicious")
    verdict = MALICIOUS if malicious is True else OTHER if malicious is False else UNKNOWN
    return Row(_kind(item), verdict, _label(item.get("engine")), _platforms(item.get("platforms")), pairs)


def _few(kinds: Counter[tuple[str, bool]]) -> Counter[tuple[str, bool]]:
    """TAP has about fifteen types; the rarest of very many are counted together."""
    if len(kinds) <= _MOST_KINDS:
        return kinds
    few = Counter(dict(kinds.most_common(_MOST_KINDS)))
    for (kind, is_malicious), count in kinds.items():
        if (kind, is_malicious) not in few:
            few["(further types)", is_malicious] += count
    return few


def _kind(item: dict[str, Any]) -> str:
    return _label(item.get("type")) or "(no type)"


def _label(value: Any) -> str:
    return label(value) if isinstance(value, str) else ""


def _platforms(value: Any) -> str:
    named = []
    for platform in fields.texts(value):
        if isinstance(platform, dict):
            parts = [_label(platform.get(key)) for key in ("name", "version")]
            named.append(" ".join(part for part in parts if part) or _label(platform.get("os")))
    return ", ".join(dict.fromkeys(name for name in named if name))[:_LONGEST_PLATFORMS]


def _take_event(event: EventLine, findings: Findings, sightings: dict[str, Sighting]) -> None:
    is_click = event.kind.startswith("clicks")
    is_update = event.fields.get("_update") is True
    moment = fields.moment(event.fields.get("clickTime" if is_click else "messageTime"))
    if moment and not is_update:
        findings.moments.append((moment, event.kind))
    threats = [event.fields] if is_click else fields.texts(event.fields.get("threatsInfoMap"))
    for threat in threats:
        if isinstance(threat, dict):
            _take_threat(threat, event.kind, is_update, sightings)


def _take_threat(threat: dict[str, Any], kind: str, is_update: bool, sightings: dict[str, Sighting]) -> None:
    """Reads both spellings of a field, the live one first. An update is not counted as another event."""
    threat_id = text_or_none(threat.get("threatID")) or text_or_none(threat.get("threatId"))
    if threat_id is None:
        return
    sighting = sightings.setdefault(label(threat_id), Sighting())
    sighting.seen[kind] += not is_update
    sighting.is_update = sighting.is_update or is_update
    campaign = _label(threat.get("campaignID")) or _label(threat.get("campaignId"))
    sighting.campaign_id = campaign or sighting.campaign_id
    sighting.classification = _label(threat.get("classification")) or sighting.classification
    sighting.status = _label(threat.get("threatStatus")) or sighting.status
