"""The state document and the lease in it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tap_forensics.errors import StateUnreadable
from tap_forensics.storage.state import VERSION, Lease, State, decode, encode, new_lease
from tests.support.clocks import NOW

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
WHERE = "gs://demo-bucket/state/tap-forensics/state.json"
LEASE = {
    "run_id": "20260304_090000",
    "owner": "o",
    "seconds": 180,
    "started": "2026-03-04T09:00:00Z",
}
GAP = {"start": "2026-03-04T07:00:00Z", "end": "2026-03-04T08:00:00Z", "since": "2026-03-04T08:00:00Z"}
THREAT = {"priority": 1, "first_seen": "2026-03-04T08:00:00Z"}


def read(document: object) -> State:
    return decode(json.dumps(document).encode(), WHERE, NOW)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-04T09:00:00+00:00", NOW - HOUR),
        ("2026-03-04T09:00:00Z", NOW - HOUR),
        ("2026-03-04T09:00:00", NOW - HOUR),
        ("2026-03-04T09:00:00.250000+00:00", NOW - HOUR + timedelta(milliseconds=250)),
        ("2026-03-04T10:00:00+01:00", NOW - HOUR),
    ],
)
def test_the_published_functions_object_is_taken_over(text: str, moment: datetime) -> None:
    assert read({"last_event_time": text}) == State(VERSION, last_event_time=moment)


def test_what_else_stands_in_the_published_functions_object_is_no_matter() -> None:
    assert read({"last_event_time": "2026-03-04T09:00:00Z", "note": "mine"}).last_event_time == NOW - HOUR


def test_an_unknown_field_of_our_version_is_passed_over() -> None:
    assert read({"version": 2, "unheard_of": {"x": 1}}) == State(VERSION)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"not json",
        b"\xff\xfe",
        b'{"last_event_time":"2026-03-04T09:00:00Z"',
        b"[" * 100_000,
        b'{"version":2,"backlog":' + b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"version":' + b"9" * 100_000 + b"}",
        b'{"version":2,"lease":{"batches":1e999}}',
        b'{"last_event_time":"\\ud800"}',
    ],
    ids=range(12),
)
def test_bytes_that_are_no_document_are_unreadable(data: bytes) -> None:
    with pytest.raises(StateUnreadable) as caught:
        decode(data, WHERE, NOW)
    assert str(caught.value).startswith(f"the state object {WHERE} cannot be used (")
    assert "nothing was changed. `tap-forensics state repair`" in str(caught.value)
    # A state that is deleted takes its open items with it.
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        [],
        5,
        "text",
        None,
        True,
        {},
        {"last_event_time": None},
        {"last_event_time": 1_772_618_400},
        {"last_event_time": ""},
        {"last_event_time": "yesterday"},
        {"last_event_time": ["2026-03-04T09:00:00Z"]},
        {"last_event_time": "0001-01-01T00:00:00+01:00"},
        {"last_event_time": "9999-12-31T23:59:59-01:00"},
        {"last_event_time": "2026-03-04T11:00:01Z"},
    ],
)
def test_a_document_that_is_not_the_published_functions_is_unreadable(document: object) -> None:
    with pytest.raises(StateUnreadable, match="gs://demo-bucket"):
        read(document)


@pytest.mark.parametrize("version", [0, 3, 10**30, -1, "1", None, True, 1.5, [1], {"x": 1}])
def test_another_version_is_unreadable_and_named(version: object) -> None:
    with pytest.raises(StateUnreadable, match="version"):
        read({"version": version})


@pytest.mark.parametrize(
    "wrong",
    [
        {"last_event_time": 5},
        {"last_event_time": "2026-03-04T09:00:00"},
        {"last_event_time": "2026-03-04T11:00:01Z"},
        {"last_event_time": "9999-12-31T23:59:59-01:00"},
        {"last_run_id": 5},
        {"last_run_id": "yesterday"},
        {"lease": []},
        {"lease": {}},
        {"lease": LEASE | {"run_id": None}},
        {"lease": LEASE | {"run_id": "../x"}},
        {"lease": LEASE | {"owner": 5}},
        {"lease": LEASE | {"seconds": -1}},
        {"lease": LEASE | {"seconds": "180"}},
        {"lease": LEASE | {"started": 5}},
        {"lease": LEASE | {"started": "2026-03-04T11:00:01Z"}},
        {"lease": LEASE | {"asking": [5]}},
        {"lease": LEASE | {"reading": [["2026-03-04T07:00:00Z"]]}},
        {"lease": LEASE | {"batches": -1}},
        {"lease": LEASE | {"campaigns": [5]}},
        {"gaps": {}},
        {"gaps": [GAP | {"start": "soon"}]},
        {"gaps": [{"start": GAP["start"], "end": GAP["end"]}]},
        {"gaps": [GAP | {"attempts": -1}]},
        {"gaps": [GAP | {"kills": -1}]},
        {"gaps": [GAP | {"tried": "soon"}]},
        {"gaps": [GAP | {"end": "9999-12-31T23:59:59Z"}]},
        {"lost": [{"start": GAP["start"], "end": GAP["end"], "why": 5}]},
        {"calls": []},
        {"calls": {"siem": {"buckets": [1]}}},
        {"calls": {"siem": {"buckets": {"soon": 1}}}},
        {"calls": {"siem": {"buckets": {"1": "1"}}}},
        {"calls": {"siem": {"buckets": {"1": -100}}}},
        {"calls": {"siem": {"limited_at": 5}}},
        {"calls": {"siem": {"limited_at": "2026-03-04T09:00:00"}}},
        {"backlog": []},
        {"backlog": {"t": {"priority": 1}}},
        {"backlog": {"t": THREAT | {"priority": "1"}}},
        {"backlog": {"t": THREAT | {"campaign": 5}}},
        {"backlog": {"t": THREAT | {"last_seen": "2026"}}},
        {"collected": {"t": "now"}},
        {"collected": {"t": -1}},
        {"collected": ["t"]},
    ],
    ids=json.dumps,
)
def test_a_wrong_value_in_any_field_of_ours_is_unreadable(wrong: dict[str, Any]) -> None:
    with pytest.raises(StateUnreadable, match="gs://demo-bucket"):
        read({"version": 2} | wrong)


@pytest.mark.parametrize("sound", [{"lease": LEASE}, {"gaps": [GAP]}, {"backlog": {"t": THREAT}}])
def test_the_samples_above_are_sound_but_for_what_is_changed(sound: dict[str, Any]) -> None:
    assert read({"version": 2} | sound).version == VERSION


def test_a_cursor_an_hour_ahead_is_a_clock_that_was_set_back() -> None:
    assert read({"version": 2, "last_event_time": "2026-03-04T11:00:00Z"}).last_event_time == NOW + HOUR


def test_empty_fields_take_no_room() -> None:
    assert encode(State(VERSION)) == b'{"version":2}'


def test_times_are_written_as_the_published_function_can_read_them() -> None:
    text = json.loads(encode(State(VERSION, last_event_time=NOW)))["last_event_time"]
    assert text == "2026-03-04T10:00:00Z"


def test_a_new_run_is_named_by_its_second() -> None:
    lease = new_lease(State(VERSION), NOW + timedelta(milliseconds=700), 180)
    assert (lease.run_id, lease.started, lease.batches, lease.campaigns) == ("20260304_100000", NOW, 0, [])
    assert lease.seconds == 180


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("20260304_095959", "20260304_100000"),
        ("20260304_100000", "20260304_100001"),
        ("20260304_235959", "20260305_000000"),
        ("20261231_235959", "20270101_000000"),
    ],
)
def test_a_run_is_named_after_the_last_one_where_the_clock_is_not(last: str, expected: str) -> None:
    assert new_lease(State(VERSION, last_run_id=last), NOW, 180).run_id == expected


def test_a_dead_runs_name_and_progress_are_taken_on_under_a_new_owner() -> None:
    dead = Lease("20260304_090000", "dead", NOW - HOUR, 60, ["t"], batches=3, campaigns=["c1"])
    lease = new_lease(State(VERSION, lease=dead), NOW, 180)
    assert (lease.run_id, lease.started, lease.batches) == (dead.run_id, dead.started, 3)
    assert (lease.asking, lease.campaigns) == (["t"], ["c1"])
    assert (lease.owner != "dead", lease.seconds) == (True, 180)
    lease.campaigns.append("c2")
    assert dead.campaigns == ["c1"]


AS_0_1_0_WROTE_IT = {
    "version": 1,
    "last_event_time": "2026-03-04T08:59:00Z",
    "last_run_id": "20260304_080000",
    "lease": {
        "run_id": "20260304_090000",
        "owner": "0f",
        "until": "2026-03-04T09:03:00Z",
        "started": "2026-03-04T09:00:00Z",
        "batches": 2,
        "campaigns": ["c1"],
        "event_batches": 3,
    },
    "stalls": 4,
    "silent": 2,
    "gaps": [
        {**GAP, "attempts": 5, "tried": "2026-03-04T09:00:00Z"},
        {**GAP, "start": GAP["end"], "end": "2026-03-04T08:30:00Z"},
    ],
    "lost": [{**GAP, "why": "refused"}],
    "calls": {"siem": {"buckets": {"2954000": 7}}},
    "backlog": {
        "a": {"priority": 0, "first_seen": "2026-03-04T08:00:00Z", "campaign": "c1"},
        "b": {**THREAT, "attempts": 2, "failing_since": "2026-03-04T08:00:00Z"},
    },
    "collected": {"t": 1_772_600_000},
}


def test_a_document_of_0_1_0_is_read_with_all_its_open_items() -> None:
    state = read(AS_0_1_0_WROTE_IT)
    assert [(gap.start, gap.end, gap.attempts, gap.kills, gap.due(NOW)) for gap in state.gaps] == [
        (NOW - 3 * HOUR, NOW - 2 * HOUR, 5, 0, False),
        (NOW - 2 * HOUR, NOW - 1.5 * HOUR, 0, 0, True),
    ]
    assert {name: (t.priority, t.attempts, t.campaign, t.due(NOW)) for name, t in state.backlog.items()} == {
        "a": (0, 0, "c1", True),
        "b": (1, 2, None, True),
    }
    # It did not know when TAP showed a threat last, so none may expire at once.
    assert {t.last_seen for t in state.backlog.values()} == {NOW}
    assert (state.last_event_time, state.collected) == (NOW - timedelta(minutes=61), {"t": 1_772_600_000})
    assert state.calls["siem"].buckets == {2_954_000: 7}
    assert state.lease is not None
    assert (state.lease.batches, state.lease.event_batches, state.lease.seconds) == (2, 3, 0)
