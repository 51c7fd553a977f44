"""Which objects and records a time and a tenant select."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tap_forensics.report.records import EventLine, Record, Report, Tally, read_records
from tap_forensics.report.selection import Selection
from tap_forensics.report.source import Line
from tap_forensics.report.summaries import Summary

DAY = datetime(2026, 3, 4, tzinfo=UTC)
NEXT = datetime(2026, 3, 5, tzinfo=UTC)
OF_THE_DAY = Selection(DAY, NEXT)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tap-forensics/tap_forensics_20260304_100000.ndjson", True),
        # A run that takes over from a dead one has its old ID.
        ("tap-forensics/tap_forensics_20260302_100000_0002.ndjson", True),
        ("tap-forensics/tap_forensics_20260301_100000.ndjson", False),
        ("tap-forensics/tap_forensics_20260305_003000.ndjson.gz", True),
        ("tap-forensics/tap_forensics_20260305_013000.ndjson.gz", False),
        # An event is older than the run that reads it.
        ("tap-siem/tap_siem_events_20260308_100000.ndjson", True),
        ("tap-siem/tap_siem_events_20260301_100000.ndjson", False),
        ("tap_forensics_20261399_996199.ndjson", True),
        ("any other name.ndjson", True),
    ],
)
def test_an_object_is_left_out_only_if_its_name_says_that_nothing_in_it_is_wanted(
    name: str, wanted: bool
) -> None:
    assert OF_THE_DAY.wants_object(name) is wanted
    assert Selection().wants_object(name)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tap-forensics/acme/x.ndjson", True),
        ("acme/x.ndjson", True),
        ("tap-forensics/acme-2/x.ndjson", False),
        ("acme/deeper/x.ndjson", False),
        ("tap-forensics/x.ndjson", False),
        ("acme", False),
    ],
)
def test_a_tenants_objects_are_directly_in_its_folder(name: str, wanted: bool) -> None:
    assert Selection(tenant="acme").wants_object(name) is wanted


def selected(selection: Selection, *documents: dict[str, Any]) -> tuple[list[Record], Tally]:
    tally = Tally()
    lines = [Line("x:1", json.dumps(document).encode()) for document in documents]
    return list(selection.select(read_records(lines, tally), tally)), tally


def made(moment: Any) -> dict[str, Any]:
    return {"scope": "THREAT", "id": "a", "forensics": [], "generated": moment}


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        ("2026-03-04T00:00:00Z", True),
        ("2026-03-04T23:59:59.999Z", True),
        ("2026-03-05T00:30:00+01:00", True),
        ("2026-03-05T00:00:00Z", False),
        ("2026-03-03T23:59:59Z", False),
    ],
)
def test_the_start_is_in_and_the_end_is_out(moment: str, wanted: bool) -> None:
    click = {"_eventType": "clicksBlocked", "clickTime": moment}
    mail = {"messagesDelivered": [{"messageTime": moment}]}
    found, tally = selected(OF_THE_DAY, made(moment), click, mail)
    assert [type(record) for record in found] == ([Report, EventLine, EventLine] if wanted else [])
    assert tally.without_time == 0


def test_what_has_no_time_is_left_out_and_counted_but_summaries_stay() -> None:
    summary: dict[str, Any] = {"id": "a", "severity": "high"}
    documents: tuple[dict[str, Any], ...]
    documents = (made(None), made("yesterday"), {"clicksBlocked": [{}]}, summary)
    found, tally = selected(Selection(until=NEXT), *documents)
    assert [type(record) for record in found] == [Summary]
    assert tally.without_time == 3
    found, tally = selected(Selection(), *documents)
    assert (len(found), tally.without_time) == (4, 0)


def test_all_parts_of_a_report_are_selected_together() -> None:
    parts = [made("2026-03-04T10:00:00Z") | {"_part": number, "_parts": 2} for number in (1, 2)]
    found, _ = selected(OF_THE_DAY, *parts)
    assert [record.continues for record in found if isinstance(record, Report)] == [False, True]
