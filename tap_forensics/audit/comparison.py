"""What TAP shows, the lines in the bucket and the state → what is missing, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import Enum
from typing import NamedTuple

from tap_forensics.audit.lines import BucketLines, Defect
from tap_forensics.audit.shown import MOST_NAMED, THREATS, Shown, ShownThreat
from tap_forensics.clock import iso
from tap_forensics.records.event_lines import EVENT_TYPES
from tap_forensics.storage.state import State
from tap_forensics.tap.windows import Window

# So many collected threats without a line are no chance.
_MANY = 5
_ORDER = (THREATS, *EVENT_TYPES)


class Verdict(Enum):
    """What a kind of finding means for the answer."""

    DEFECT = "the bucket is not complete, not without repetitions, or cannot be read"
    UNDECIDED = "it could not be decided"
    EXPLAINED = "nothing is missing"


# Every kind of finding: its title, and what it means. In the order in which they are shown.
KINDS: dict[str, tuple[str, Verdict]] = {
    "threats_missing": ("Threats without a line, which the state does not know", Verdict.DEFECT),
    "threats_open": ("Threats without a line that are still open", Verdict.DEFECT),
    "events_missing": ("Events without a line", Verdict.DEFECT),
    "events_open": ("Events without a line, in windows that are still open", Verdict.DEFECT),
    "lines_twice": ("Lines that occur twice", Verdict.DEFECT),
    "objects_unreadable": ("What a feed cannot read", Verdict.DEFECT),
    "windows_unread": ("Windows that TAP did not answer", Verdict.UNDECIDED),
    "threats_undecided": ("Threats without a line, for an unknown reason", Verdict.UNDECIDED),
    "events_undecided": ("Events without a line, for an unknown reason", Verdict.UNDECIDED),
    "threats_covered": ("Threats that are covered by their campaign's report", Verdict.EXPLAINED),
    "threats_without_report": ("Threats for which TAP has no report", Verdict.EXPLAINED),
    "lines_gone": ("Lines whose event TAP no longer shows", Verdict.EXPLAINED),
}


@dataclass
class Findings:
    """`named` has the first `MOST_NAMED` of each kind; `counts` counts all of them."""

    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[Defect]] = field(default_factory=dict)

    def add(self, kind: str, found: Defect) -> None:
        named = self.named.setdefault(kind, [])
        self.counts[kind] += 1
        if len(named) < MOST_NAMED:
            named.append(found)

    def is_complete(self) -> bool | None:
        """None if it could not be decided."""
        found = {KINDS[kind][1] for kind, count in self.counts.items() if count}
        if Verdict.DEFECT in found:
            return False
        return None if Verdict.UNDECIDED in found else True


class DayCount(NamedTuple):
    """What TAP shows of one type on one day, how much of it is in the bucket, and for how much nothing is to
    come (`explained`).
    """

    day: date
    kind: str
    shown: int
    in_bucket: int
    explained: int

    @property
    def missing(self) -> int:
        return self.shown - self.in_bucket - self.explained


@dataclass(frozen=True)
class Knowledge:
    """What the state says, and how far it can be trusted.

    `delivered`: the keys of the event dedup index. `indexed_from`: since then it has every event that was
    delivered. `reread_from`: the next run reads again what is later. `deleted_evidence`, `deleted_events`:
    what shows that lines were deleted; empty if nothing does.
    """

    state: State
    reread_from: datetime
    delivered: Container[int] = ()
    indexed_from: datetime | None = None
    deleted_evidence: str = ""
    deleted_events: str = ""

    def why_open(self, window: Window) -> str:
        """Why this window will be read again; empty if it will not."""
        for gap in self.state.gaps:
            if gap.start < window.end and window.start < gap.end:
                return f"its window {gap.window()} is still open ({gap.attempts} failed attempts)"
        return "the next run reads its window again" if window.end > self.reread_from else ""

    def why_lost(self, window: Window) -> str:
        """Why this window was not read; empty if it was."""
        for lost in self.state.lost:
            if lost.start < window.end and window.start < lost.end:
                return f"its window was lost: {lost.why}"
        return ""


@dataclass
class Compared:
    """The result. `doubtful`: threats of which only TAP can say whether it has a report.

    `without_line`, `explained`: by day and type. `threats_to_reopen`, `windows_to_reopen`: for a repair.
    """

    findings: Findings = field(default_factory=Findings)
    doubtful: list[str] = field(default_factory=list)
    without_line: Counter[tuple[date, str]] = field(default_factory=Counter)
    explained: Counter[tuple[date, str]] = field(default_factory=Counter)
    threats_to_reopen: list[str] = field(default_factory=list)
    windows_to_reopen: set[int] = field(default_factory=set)

    def add_threat(self, kind: str, found: Defect, day: date) -> None:
        self.findings.add(kind, found)
        if kind == "threats_missing":
            self.threats_to_reopen.append(found.name)
        self.without_line[day, THREATS] += 1
        self.explained[day, THREATS] += KINDS[kind][1] is Verdict.EXPLAINED

    def add_event(self, kind: str, found: Defect, day_and_type: tuple[date, str]) -> None:
        self.findings.add(kind, found)
        self.without_line[day_and_type] += 1


def compare(shown: Shown, lines: BucketLines, known: Knowledge) -> Compared:
    """Everything but `doubtful`, which `settle_doubtful` decides."""
    compared = Compared()
    known = _with_signs(shown, lines, known)
    for threat_id, threat in shown.threats.items():
        if threat_id not in lines.threats:
            found = _explain(threat_id, threat, shown, lines, known)
            if found:
                compared.add_threat(*found, _first_day(threat, shown))
            else:
                compared.doubtful.append(threat_id)
    _add_events(compared, shown, known)
    _add_lines(compared.findings, shown, lines)
    return compared


def _with_signs(shown: Shown, lines: BucketLines, known: Knowledge) -> Knowledge:
    """TAP has a report for nearly every threat: if most collected ones have no line, something deletes."""
    collected = shown.threats.keys() & known.state.collected.keys()
    without = len(collected - lines.threats)
    if known.deleted_evidence or without < _MANY or without * 2 <= len(collected):
        return known
    sign = f"{without:,} of {len(collected):,} collected threats have no line"
    return replace(known, deleted_evidence=sign)


def _first_day(threat: ShownThreat, shown: Shown) -> date:
    return shown.day(min(threat.windows))


def _add_lines(findings: Findings, shown: Shown, lines: BucketLines) -> None:
    for kind, defects in (("lines_twice", lines.twice), ("objects_unreadable", lines.unreadable)):
        for defect in defects:
            findings.add(kind, defect)
    for number, why in shown.unread.items():
        findings.add("windows_unread", Defect(str(shown.windows[number]), why))
    if not shown.unread:
        # An event of a window that was not read is perhaps still shown.
        for name in lines.gone():
            findings.add("lines_gone", Defect(name, "TAP shows no such event in the interval"))


def _explain(
    threat_id: str, threat: ShownThreat, shown: Shown, lines: BucketLines, known: Knowledge
) -> tuple[str, Defect] | None:
    """Why a threat has no line, as far as the state knows."""
    state = known.state
    item = state.backlog.get(threat_id)
    waits = f"on the backlog since {iso(item.first_seen)} ({item.attempts} failed attempts)" if item else ""
    if threat.campaign and (threat.campaign in state.campaigns or threat.campaign in lines.campaigns):
        words = "; ".join(filter(None, [f"the report of campaign {threat.campaign} was delivered", waits]))
        return "threats_covered", Defect(threat_id, words)
    if waits:
        return "threats_open", Defect(threat_id, waits)
    if threat_id in state.collected:
        if known.deleted_evidence:
            words = f"TAP had no report, or its line was deleted: {known.deleted_evidence}"
            return "threats_undecided", Defect(threat_id, words)
        return "threats_without_report", Defect(threat_id, "TAP had none when a run asked for it")
    open_windows = [known.why_open(shown.windows[number]) for number in threat.windows]
    return ("threats_open", Defect(threat_id, open_windows[0])) if all(open_windows) else None


def _add_events(compared: Compared, shown: Shown, known: Knowledge) -> None:
    kinds = [_kind_of_missing(window, known) for window in shown.windows]
    for key in shown.missing:
        number, event_type = shown.window_and_kind(key)
        kind, why = kinds[number]
        if key in known.delivered:
            kind, why = "events_undecided", "it was delivered: the event dedup index has it, its line is gone"
        name = shown.labels.get(key, event_type)
        compared.add_event(kind, Defect(name, why), (shown.day(number), event_type))
        if kind == "events_missing":
            compared.windows_to_reopen.add(number)


def _kind_of_missing(window: Window, known: Knowledge) -> tuple[str, str]:
    """What it means that an event of this window has no line and is not in the index."""
    if why_open := known.why_open(window):
        return "events_open", why_open
    if why_lost := known.why_lost(window):
        return "events_missing", why_lost
    if known.indexed_from and window.start >= known.indexed_from:
        return "events_missing", "never delivered: the event dedup index does not have it"
    if known.deleted_events:
        return "events_undecided", f"not delivered, or its line was deleted: {known.deleted_events}"
    return "events_missing", f"its window {window} was read without it, or never"


def settle_doubtful(compared: Compared, answers: Mapping[str, bool], shown: Shown, known: Knowledge) -> None:
    """Decides the threats of which TAP said whether it has a report; the others stay undecided."""
    for threat_id in compared.doubtful:
        kind, why = _verdict(answers.get(threat_id), known)
        threat = shown.threats[threat_id]
        if kind == "threats_missing":
            lost = [known.why_lost(shown.windows[number]) for number in threat.windows]
            why = next(filter(None, lost), why)
        compared.add_threat(kind, Defect(threat_id, why), _first_day(threat, shown))


def _verdict(has_report: bool | None, known: Knowledge) -> tuple[str, str]:
    if has_report is None:
        return (
            "threats_undecided",
            "expired, or TAP has no report for it; it gave no answer, or was not asked",
        )
    if not has_report:
        return "threats_without_report", "TAP itself says so"
    if known.deleted_evidence:
        return "threats_undecided", f"expired, or its line was deleted: {known.deleted_evidence}"
    return "threats_missing", "expired, given up or never read, and TAP has a report"


def day_counts(shown: Shown, compared: Compared) -> list[DayCount]:
    """By day, then by type. A threat counts on the first day on which TAP shows it."""
    totals: Counter[tuple[date, str]] = Counter()
    for threat in shown.threats.values():
        totals[_first_day(threat, shown), THREATS] += 1
    for (number, kind), count in shown.events.items():
        totals[shown.day(number), kind] += count
    return [
        DayCount(day, kind, totals[day, kind], totals[day, kind] - without, compared.explained[day, kind])
        for day, kind in sorted(totals, key=lambda entry: (entry[0], _ORDER.index(entry[1])))
        for without in [compared.without_line[day, kind]]
    ]
