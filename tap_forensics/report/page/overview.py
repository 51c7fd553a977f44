"""Findings → the figures and charts at the top of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from markupsafe import Markup

from tap_forensics.report.page.charts import Bars, columns_svg, rows_svg
from tap_forensics.report.page.exports import ListedIndicator
from tap_forensics.report.page.findings import Findings, ThreatEntry

_MOST_BUCKETS, _LEAST_BUCKETS = 48, 12
_MOST_KINDS = 18
_MOST_GROUPS = 6
_FARTHEST = timedelta(days=31)
_STEPS = [timedelta(minutes=m) for m in (5, 10, 30, 60, 180, 360, 720, 1440)]
_EVENT_NAMES = {
    "clicksPermitted": "clicks permitted",
    "messagesDelivered": "messages delivered",
    "messagesBlocked": "messages blocked",
    "clicksBlocked": "clicks blocked",
}
# TAP is not older; other dates are not real.
_YEARS = range(2000, 2200)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Chart(NamedTuple):
    """One chart in two widths; the style sheet shows the one that fits. `legend` names the series."""

    slug: str
    title: str
    note: str
    wide: Markup
    narrow: Markup
    legend: list[str]
    bars: Bars


def key_figures(findings: Findings, indicators: Sequence[ListedIndicator]) -> list[tuple[str, int, str]]:
    """(name, count, detail), the most urgent last."""
    threats = [entry for entry in findings.entries if not entry.is_campaign]
    bad = sum(entry.malicious > 0 for entry in findings.entries)
    campaigns = {entry.campaign_id for entry in findings.entries if entry.campaign_id}
    evidence = sum(entry.kinds.total() for entry in findings.entries)
    malicious = sum(entry.malicious for entry in findings.entries)
    clicked = sum(entry.seen["clicksPermitted"] > 0 for entry in threats)
    return [
        (
            "threats",
            len(threats),
            f"{clicked:,} clicked and let through" if findings.moments else "with a report",
        ),
        ("campaigns", len(campaigns), f"{len(findings.campaigns):,} with a report"),
        ("items of evidence", evidence, f"{malicious:,} malicious"),
        ("malicious reports", bad, f"of {len(findings.entries):,}"),
        ("malicious indicators", len(indicators), "to search for or block"),
    ]


def charts(findings: Findings) -> list[Chart]:
    return [chart for chart in (_timeline(findings), _by_kind(findings), *_by_group(findings)) if chart]


def _timeline(findings: Findings) -> Chart | None:
    """Of the events if there are any, otherwise of the reports by the time when TAP made them."""
    made = [(entry.generated, "reports") for entry in findings.entries if entry.generated]
    told = [(when, _EVENT_NAMES[kind]) for when, kind in findings.moments] or made
    moments = [(when, kind) for when, kind in told if when.year in _YEARS]
    if not moments:
        return None
    near, step = _span(moments)
    left_out = len(told) - len(near)
    first = _floor(near[0][0], step)
    count = (near[-1][0] - first) // step + 1
    missing = max(0, _LEAST_BUCKETS - count)
    first, count = first - missing // 2 * step, count + missing
    names = list(_EVENT_NAMES.values()) if findings.moments else ["reports"]
    series = {name: [0] * count for name in names}
    for when, kind in near:
        series[kind][(when - first) // step] += 1
    pattern = "%d %b" if step >= timedelta(days=1) else "%d %b %H:%M"
    labels = [(first + number * step).strftime(pattern) for number in range(count)]
    title = "Events" if findings.moments else "Reports"
    note = f"one bar is {_in_words(step)}, UTC" + (
        f"; {left_out:,} of other times left out" if left_out else ""
    )
    bars = Bars(f"{title} over time, {note}", labels, series)
    return Chart(
        "timeline",
        f"{title} over time",
        note,
        columns_svg(bars, 1100, 190),
        columns_svg(bars, 420, 190),
        names,
        bars,
    )


def _span(moments: list[tuple[datetime, str]]) -> tuple[list[tuple[datetime, str]], timedelta]:
    """The moments within a month of the median, in order, and the step of the axis.

    A single wrong date must not stretch the axis.
    """
    ordered = sorted(moments)
    middle = ordered[len(ordered) // 2][0]
    near = [(when, kind) for when, kind in ordered if abs(when - middle) <= _FARTHEST]
    length = near[-1][0] - near[0][0]
    step = next((step for step in _STEPS if length / step < _MOST_BUCKETS - 1), timedelta(days=2))
    return near, step


def _floor(when: datetime, step: timedelta) -> datetime:
    return when - (when - _EPOCH) % step


def _in_words(step: timedelta) -> str:
    minutes = step // timedelta(minutes=1)
    number, unit = (minutes, "minute") if minutes < 60 else (minutes // 60, "hour")
    return f"{number} {unit}{'s' if number > 1 else ''}"


def _by_kind(findings: Findings) -> Chart | None:
    counts: Counter[tuple[str, bool]] = Counter()
    for entry in findings.entries:
        counts.update(entry.kinds)
    totals: Counter[str] = Counter()
    for (kind, _), count in counts.items():
        totals[kind] += count
    kinds = [kind for kind, _ in totals.most_common(_MOST_KINDS)]
    if not kinds:
        return None
    series = {
        "malicious": [counts[kind, True] for kind in kinds],
        "not malicious": [counts[kind, False] for kind in kinds],
    }
    rest = len(totals) - len(kinds)
    note = f"{rest} rarer types left out" if rest else "items"
    bars = Bars("Evidence by type", kinds, series)
    return Chart(
        "kinds", "Evidence by type", note, rows_svg(bars, 560), rows_svg(bars, 420), list(series), bars
    )


def _by_group(findings: Findings) -> list[Chart | None]:
    threats = [entry for entry in findings.entries if not entry.is_campaign]
    statuses = [(entry.status or "unknown", entry) for entry in threats]
    names = findings.campaigns
    campaigns = [(names.get(e.campaign_id, e.campaign_id), e) for e in threats if e.campaign_id]
    return [
        _grouped("statuses", "Threats by status", statuses),
        _grouped("campaigns", "Threats by campaign", campaigns),
    ]


def _grouped(slug: str, title: str, named: list[tuple[str, ThreatEntry]]) -> Chart | None:
    """The largest groups, and how many of their threats have malicious evidence."""
    totals = Counter(name for name, _ in named)
    bad = Counter(name for name, entry in named if entry.malicious)
    shown = [name for name, _ in totals.most_common(_MOST_GROUPS)]
    if not shown:
        return None
    series = {
        "with malicious evidence": [bad[name] for name in shown],
        "without": [totals[name] - bad[name] for name in shown],
    }
    note = f"the largest {len(shown)} of {len(totals):,}" if len(totals) > len(shown) else ""
    bars = Bars(title, shown, series)
    return Chart(slug, title, note, rows_svg(bars, 560), rows_svg(bars, 420), list(series), bars)
