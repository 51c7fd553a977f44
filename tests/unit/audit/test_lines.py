"""What the lines of objects contain, what repeats, and what a feed cannot read."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.audit import lines as module
from tap_forensics.audit.lines import (
    LONGEST_LINE_BYTES,
    BucketLines,
    EventPlaces,
    Rules,
    SourceObject,
    Undecidable,
    fault_of,
    numbered_lines,
)
from tap_forensics.records.event_lines import envelope, line_of
from tap_forensics.tap.windows import Window
from tests.support.clocks import NOW

HOUR = timedelta(hours=1)
INTERVAL = Window(NOW - 24 * HOUR, NOW)


def bucket_lines(*, dedup_hours: int = 24, campaigns_once: bool = True) -> BucketLines:
    return BucketLines(INTERVAL, Rules(dedup_hours * HOUR, campaigns_once))


def add(
    lines: BucketLines, hours: float, *documents: dict[str, Any] | bytes, of_events: bool = False
) -> None:
    """An object of a run so many hours after NOW."""
    moment = NOW + hours * HOUR
    source = SourceObject(f"{hours}", f"{moment:%Y%m%d_%H%M%S}", moment)
    data = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents]
    lines.add_object(source, io.BytesIO(b"\n".join(data)), of_events=of_events)


def evidence(
    threat: str = "t", scope: str = "THREAT", report: str | None = "r", **more: Any
) -> dict[str, Any]:
    return {"scope": scope, "id": report, "_threatId": threat, "forensics": [], **more}


def event(number: int = 1, *, status: str = "active", update: bool = False, shape: str = "api") -> bytes:
    fields = {"GUID": str(number), "clickTime": "2026-03-04T09:00:00.000Z", "threatStatus": status}
    return line_of(json.dumps(fields).encode(), envelope("clicksBlocked", shape), update=update)


@pytest.mark.parametrize(("apart", "count"), [(0, 1), (1, 1), (23.9, 1), (24, 0), (30, 0)])
def test_a_threats_report_may_come_again_after_dedup_hours(apart: float, count: int) -> None:
    lines = bucket_lines()
    add(lines, 0, evidence())
    add(lines, apart, evidence(generated="later"))
    assert len(lines.twice) == count


def test_without_dedup_hours_only_one_run_repeats() -> None:
    lines = bucket_lines(dedup_hours=0)
    add(lines, 0, evidence())
    add(lines, 1, evidence(), evidence())
    assert [defect.name for defect in lines.twice] == ["1:2"]


def test_a_takeover_has_an_old_id_and_a_copy_a_new_time() -> None:
    """Two lines are only too near if both the ids of their runs and the times of writing are."""
    for before, after in (
        (("20260304_100000", 0), ("20260304_103000", 25)),
        (("20260303_090000", 0), ("", 0)),
    ):
        lines = bucket_lines()
        for run_id, hours in (before, after):
            source = SourceObject("x", run_id, NOW + hours * HOUR)
            lines.add_object(source, io.BytesIO(json.dumps(evidence()).encode()), of_events=False)
        assert bool(lines.twice) is (after[0] == "")


@pytest.mark.parametrize(("once", "counts"), [(True, (1, 0)), (False, (0, 1))])
def test_a_campaigns_report_repeats_as_the_setting_says(once: bool, counts: tuple[int, int]) -> None:
    other_threat, other_run = bucket_lines(campaigns_once=once), bucket_lines(campaigns_once=once)
    add(other_threat, 0, evidence("a", "CAMPAIGN"), evidence("b", "CAMPAIGN"))
    add(other_run, 0, evidence("a", "CAMPAIGN"))
    add(other_run, 1, evidence("a", "CAMPAIGN"))
    assert (len(other_threat.twice), len(other_run.twice)) == counts
    assert other_run.campaigns == {"r"}


def test_a_campaigns_line_is_not_the_report_of_the_threat_that_it_names() -> None:
    lines = bucket_lines()
    add(lines, 0, evidence("a", "CAMPAIGN"), evidence("b"))
    assert lines.threats == {"b"}
    assert lines.campaigns


def test_parts_and_reports_without_an_id_are_not_the_same() -> None:
    lines = bucket_lines()
    parts = [evidence(_part=number, _parts=2) for number in (1, 2)]
    add(lines, 0, *parts, evidence(report=None, name="a"), evidence(report=None, name="b"))
    assert not lines.twice
    add(lines, 1, parts[1], evidence(report=None, name="a"))
    assert len(lines.twice) == 2


def test_both_shapes_of_a_report_are_read() -> None:
    lines = bucket_lines()
    reports = [evidence(report="r1"), evidence(scope="CAMPAIGN", report="c")]
    add(lines, 0, {"generated": "x", "reports": reports, "_threatId": "wrapped"}, evidence("flat"))
    assert (lines.threats, lines.campaigns) == ({"wrapped", "flat"}, {"c"})
    # A campaign's report need not belong to a threat.
    add(lines, 1, {"scope": "CAMPAIGN", "id": "alone", "_campaignId": "alone", "forensics": []})
    assert (len(lines.threats), lines.campaigns, lines.others) == (2, {"c", "alone"}, 0)


@pytest.mark.parametrize("line", [b"3", b"[]", b"{}", b'{"_threatId":4}', b'{"_threatId":"a","reports":[3]}'])
def test_a_line_that_is_no_evidence_is_counted_and_nothing_else(line: bytes) -> None:
    for of_events in (False, True):
        lines = bucket_lines()
        add(lines, 0, line, of_events=of_events)
        assert (lines.others, lines.threats, lines.unreadable) == (1, set(), [])


@pytest.mark.parametrize("shape", ["api", "flat"])
def test_an_event_repeats_only_if_it_is_no_update_and_unchanged(shape: str) -> None:
    lines = bucket_lines()
    add(lines, 0, event(shape=shape), event(2, shape=shape), of_events=True)
    add(lines, 1, event(status="cleared", update=True, shape=shape), of_events=True)
    # TAP changed it back, and a verdict that came too late for the index is not marked.
    add(lines, 2, event(update=True, shape=shape), event(2, status="cleared", shape=shape), of_events=True)
    assert not lines.twice
    add(lines, 3, event(shape=shape), event(2, status="cleared", shape=shape), of_events=True)
    assert [defect.name for defect in lines.twice] == ["3:1", "3:2"]


def test_an_update_without_the_event_before_it_is_a_line_of_the_event() -> None:
    lines = bucket_lines()
    add(lines, -2, event(update=True), event(), of_events=True)
    assert not lines.twice
    assert len(lines.events) == 1


@pytest.mark.parametrize(
    ("hours", "moment", "gone"),
    [
        (-1, "2026-03-04T08:00:00.000Z", True),
        # Written after the end: perhaps it was created after it, too.
        (1, "2026-03-04T08:00:00.000Z", False),
        # Perhaps it was created before the start.
        (-1, "2026-03-01T08:00:00.000Z", False),
        (-1, None, False),
        (-1, "yesterday", False),
    ],
)
def test_only_an_event_that_is_certainly_of_the_interval_can_be_gone(
    hours: float, moment: str | None, gone: bool
) -> None:
    lines = bucket_lines()
    fields = json.dumps({"messageTime": moment}).encode()
    add(lines, hours, line_of(fields, envelope("messagesBlocked", "api"), update=False), of_events=True)
    assert bool(list(lines.gone())) is gone


def test_an_event_that_tap_shows_is_not_gone() -> None:
    lines = bucket_lines()
    add(lines, -1, event(), of_events=True)
    [key] = lines.events._numbers
    assert list(lines.gone()) == ["-1:1"]
    assert lines.events.mark_shown(key)
    assert not lines.events.mark_shown(key)
    assert not list(lines.gone())


def test_more_events_than_memory_allows_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 2)
    places = EventPlaces()
    for key in (1, 2, 1):
        places.add(key, 0, (0, key), certain=False)
    with pytest.raises(Undecidable, match="over 2 events"):
        places.add(3, 0, (0, 3), certain=False)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"a":1}', ""),
        ('{"a":"ü\u2028"}'.encode(), ""),
        (None, "a line over 4 MB"),
        (b'{"a":"\xff"}', "invalid UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "invalid UTF-8"),
        (b'{"a":1', "invalid JSON"),
        (b"{'a':1}", "invalid JSON"),
        (b'{"a":NaN}', "invalid JSON"),
        (b'{"a":1}{"b":2}', "invalid JSON"),
        (b"\xef\xbb\xbf{}", "invalid JSON"),
        (b"[" * 200_000, "JSON that is nested too deep"),
    ],
)
def test_a_line_that_a_feed_cannot_read_is_named_with_the_reason(line: bytes | None, fault: str) -> None:
    assert fault_of(line) == fault


def test_lines_are_numbered_and_a_long_one_costs_only_itself() -> None:
    long = b"x" * (LONGEST_LINE_BYTES + 1)
    just = b"y" * LONGEST_LINE_BYTES
    data = b"a\r\n\n" + long + b"\r\n" + just + b"\r\nb"
    assert [
        (number, line if line is None else line[:1]) for number, line in numbered_lines(io.BytesIO(data))
    ] == [
        (1, b"a"),
        (3, None),
        (4, b"y"),
        (5, b"b"),
    ]
