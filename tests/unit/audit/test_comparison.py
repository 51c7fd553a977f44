"""What is missing, and why, as far as the state, the index and traces of deletion tell."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.audit.comparison import (
    KINDS,
    Compared,
    Findings,
    Knowledge,
    compare,
    day_counts,
    settle_doubtful,
)
from tap_forensics.audit.lines import BucketLines, Defect, Rules, SourceObject
from tap_forensics.audit.shown import Shown, ShownThreat, audit_windows
from tap_forensics.storage.state import VERSION, Gap, LostInterval, State, Threat
from tap_forensics.tap.windows import MAX_WINDOW, MIN_WINDOW, Window
from tests.support.clocks import NOW

HOUR = timedelta(hours=1)
MIDNIGHT = NOW.replace(hour=0)
INTERVAL = Window(NOW - 3 * HOUR, NOW)
LONG_AGO = NOW - 100 * HOUR


def shown_threats(*names: str, window: int = 0, campaign: str | None = None) -> Shown:
    threats = {name: ShownThreat(1, campaign, {window}) for name in names}
    return Shown(audit_windows(INTERVAL), threats=threats)


def shown_event(window: int = 0) -> Shown:
    return Shown(audit_windows(INTERVAL), missing={7: window * 4}, labels={7: "event"})


def no_lines(**more: Any) -> BucketLines:
    return BucketLines(INTERVAL, Rules(24 * HOUR, campaigns_once=True), **more)


def known(state: State | None = None, **more: Any) -> Knowledge:
    return Knowledge(state or State(VERSION), **{"reread_from": NOW, **more})


def kinds(compared: Compared) -> dict[str, str]:
    """Kind → the reason of the first finding."""
    return {kind: compared.findings.named[kind][0].why for kind in compared.findings.counts}


def test_a_threat_with_a_line_is_no_finding() -> None:
    compared = compare(shown_threats("a"), no_lines(threats={"a"}), known())
    assert not compared.findings.counts
    assert compared.findings.is_complete() is True


@pytest.mark.parametrize("covered", [False, True])
def test_what_is_on_the_backlog_is_open_unless_its_campaign_covers_it(covered: bool) -> None:
    threat = Threat(priority=1, first_seen=NOW, last_seen=NOW, attempts=3)
    state = State(VERSION, backlog={"a": threat}, campaigns={"c": 1} if covered else {})
    compared = compare(shown_threats("a", campaign="c"), no_lines(), known(state))
    waits = "on the backlog since 2026-03-04T10:00:00Z (3 failed attempts)"
    by_campaign = {"threats_covered": f"the report of campaign c was delivered; {waits}"}
    assert kinds(compared) == (by_campaign if covered else {"threats_open": waits})
    assert compared.findings.is_complete() is covered


@pytest.mark.parametrize("by_line", [True, False])
def test_a_delivered_campaign_covers_its_threats(by_line: bool) -> None:
    state = State(VERSION, campaigns={} if by_line else {"c": 1})
    lines = no_lines(campaigns={"c"} if by_line else set())
    compared = compare(shown_threats("a", campaign="c"), lines, known(state))
    assert kinds(compared) == {"threats_covered": "the report of campaign c was delivered"}
    assert compared.findings.is_complete() is True


def test_a_collected_threat_without_a_line_has_no_report() -> None:
    compared = compare(shown_threats("a"), no_lines(), known(State(VERSION, collected={"a": 1})))
    assert set(kinds(compared)) == {"threats_without_report"}


@pytest.mark.parametrize("why", ["objects of run x are missing", ""])
def test_if_something_deletes_lines_a_collected_threat_proves_nothing(why: str) -> None:
    names = [f"threat {number}" for number in range(9)]
    state = State(VERSION, collected=dict.fromkeys(names, 1))
    compared = compare(shown_threats(*names), no_lines(), known(state, deleted_evidence=why))
    assert set(kinds(compared)) == {"threats_undecided"}
    assert (why or "9 of 9 collected threats have no line") in kinds(compared)["threats_undecided"]
    assert compared.findings.is_complete() is None


def test_a_threat_of_a_window_that_is_still_open_is_open() -> None:
    gap = Gap(start=NOW - 3 * HOUR, end=NOW - 2 * HOUR, planned_at=NOW, attempts=2)
    state = State(VERSION, gaps=[gap])
    assert (
        "is still open (2 failed"
        in kinds(compare(shown_threats("a"), no_lines(), known(state)))["threats_open"]
    )
    # In another window, too, which was read.
    both = shown_threats("a")
    both.threats["a"].windows.add(2)
    assert compare(both, no_lines(), known(state)).doubtful == ["a"]
    late = known(reread_from=NOW - HOUR)
    assert "next run" in kinds(compare(shown_threats("a", window=2), no_lines(), late))["threats_open"]


@pytest.mark.parametrize(
    ("answer", "deleted", "kind"),
    [
        (True, "", "threats_missing"),
        (True, "a rule deletes", "threats_undecided"),
        (False, "a rule deletes", "threats_without_report"),
        (None, "", "threats_undecided"),
    ],
)
def test_tap_decides_what_the_state_does_not_know(answer: bool | None, deleted: str, kind: str) -> None:
    shown, knowledge = shown_threats("a"), known(deleted_evidence=deleted)
    compared = compare(shown, no_lines(), knowledge)
    assert compared.doubtful == ["a"]
    settle_doubtful(compared, {} if answer is None else {"a": answer}, shown, knowledge)
    assert set(kinds(compared)) == {kind}
    assert compared.threats_to_reopen == (["a"] if kind == "threats_missing" else [])


def test_a_lost_window_is_the_reason_of_what_is_missing_in_it() -> None:
    state = State(VERSION, lost=[LostInterval(NOW - 4 * HOUR, NOW - 2 * HOUR, "TAP was down")])
    shown = shown_threats("a")
    compared = compare(shown, no_lines(), known(state))
    settle_doubtful(compared, {"a": True}, shown, known(state))
    assert kinds(compared) == {"threats_missing": "its window was lost: TAP was down"}
    assert kinds(compare(shown_event(), no_lines(), known(state))) == {
        "events_missing": "its window was lost: TAP was down"
    }


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, "events_missing"),
        ({"delivered": {7}}, "events_undecided"),
        ({"deleted_events": "a rule deletes"}, "events_undecided"),
        # The index has every event that was delivered since then, so nothing was deleted.
        ({"deleted_events": "a rule deletes", "indexed_from": LONG_AGO}, "events_missing"),
        ({"deleted_events": "a rule deletes", "indexed_from": NOW}, "events_undecided"),
        ({"reread_from": LONG_AGO}, "events_open"),
    ],
)
def test_an_event_without_a_line_is_missing_unless_it_was_delivered_or_is_open(
    more: dict[str, Any], kind: str
) -> None:
    compared = compare(shown_event(1), no_lines(), known(**more))
    assert set(kinds(compared)) == {kind}
    assert compared.windows_to_reopen == ({1} if kind == "events_missing" else set())


def test_with_a_window_unread_no_line_counts_as_gone() -> None:
    lines = no_lines(sources=[SourceObject("x", "", NOW)])
    lines.events.add(5, 0, (0, 1), certain=True)
    assert kinds(compare(Shown(audit_windows(INTERVAL)), lines, known())).keys() == {"lines_gone"}
    shown = Shown(audit_windows(INTERVAL), unread={0: "a time-out"})
    assert kinds(compare(shown, lines, known())) == {"windows_unread": "a time-out"}


def test_a_defect_decides_even_if_something_else_is_undecided() -> None:
    findings = Findings()
    findings.add("windows_unread", Defect("w", ""))
    assert findings.is_complete() is None
    findings.add("lines_twice", Defect("x", ""))
    assert findings.is_complete() is False


def test_the_table_counts_by_day_and_kind() -> None:
    start = MIDNIGHT - HOUR
    shown = Shown(audit_windows(Window(start, MIDNIGHT + HOUR)))
    shown.threats = {"a": ShownThreat(1, None, {1, 0}), "b": ShownThreat(1, None, {1})}
    shown.events = {(0, "clicksBlocked"): 3, (1, "messagesBlocked"): 2}  # type: ignore[assignment]  # a Counter
    shown.missing, shown.labels = {1: 0 * 4 + 3}, {}
    state = State(VERSION, collected={"b": 1})
    compared = compare(shown, no_lines(threats={"a"}), known(state))
    rows = [
        (row.day.day, row.kind, row.shown, row.in_bucket, row.explained, row.missing)
        for row in day_counts(shown, compared)
    ]
    assert rows == [
        (3, "threats", 1, 1, 0, 0),
        (3, "clicksBlocked", 3, 2, 0, 1),
        (4, "threats", 1, 0, 1, 0),
        (4, "messagesBlocked", 2, 2, 0, 0),
    ]


@pytest.mark.parametrize("seconds", [30, 31, 3600, 3601, 86_400, 6 * 86_400 + 17])
@pytest.mark.parametrize("before_midnight", [0, 10, 29, 30, 31, 1800, 4000])
def test_windows_end_at_midnight_where_tap_allows_it(seconds: int, before_midnight: int) -> None:
    start = MIDNIGHT - timedelta(seconds=before_midnight)
    interval = Window(start, start + timedelta(seconds=seconds))
    windows = audit_windows(interval)
    assert (windows[0].start, windows[-1].end) == (interval.start, interval.end)
    assert all(one.end == other.start for one, other in itertools.pairwise(windows))
    assert all(MIN_WINDOW <= window.end - window.start <= MAX_WINDOW for window in windows)
    crossing = [window for window in windows if window.start < MIDNIGHT < window.end]
    assert not crossing or min(MIDNIGHT - interval.start, interval.end - MIDNIGHT) < MIN_WINDOW


def test_every_kind_has_a_title() -> None:
    assert all(title for title, _ in KINDS.values())
