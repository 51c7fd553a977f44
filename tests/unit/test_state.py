from __future__ import annotations

import json
import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from tap_forensics.errors import StateUnreadable
from tap_forensics.state import (
    VERSION,
    Gap,
    Lease,
    Lost,
    State,
    Threat,
    add_gap,
    add_lost,
    add_threat,
    ask_again,
    close_gap,
    count_attempt,
    decode,
    encode,
    forget,
    new_lease,
    settle,
)
from tap_forensics.windows import Window

from .fakes import NOW

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
WHERE = "gs://demo-bucket/state/tap-forensics/state.json"
LEASE = {
    "run_id": "20260304_090000",
    "owner": "o",
    "until": "2026-03-04T09:03:00Z",
    "started": "2026-03-04T09:00:00Z",
}
GAP = {"start": "2026-03-04T07:00:00Z", "end": "2026-03-04T08:00:00Z", "since": "2026-03-04T08:00:00Z"}
THREAT = {"priority": 1, "first_seen": "2026-03-04T08:00:00Z"}


def read(document: object) -> State:
    return decode(json.dumps(document).encode(), WHERE, NOW)


def window(start: int, end: int) -> Window:
    """In hours before NOW."""
    return Window(NOW - start * HOUR, NOW - end * HOUR)


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
    assert read({"version": 1, "unheard_of": {"x": 1}}) == State(VERSION)


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
        b'{"version":1,"backlog":' + b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"version":' + b"9" * 100_000 + b"}",
        b'{"version":1,"stalls":1e999}',
        b'{"last_event_time":"\\ud800"}',
    ],
    ids=range(12),
)
def test_bytes_that_are_no_document_are_unreadable(data: bytes) -> None:
    with pytest.raises(StateUnreadable) as caught:
        decode(data, WHERE, NOW)
    assert str(caught.value).startswith(f"the state object {WHERE} cannot be used (")
    assert "nothing was changed. Bring back an earlier version of the object, or delete it" in str(
        caught.value
    )


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


@pytest.mark.parametrize("version", [0, 2, 10**30, -1, "1", None, True, 1.5, [1], {"x": 1}])
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
        {"lease": LEASE | {"until": "2026-03-04T12:00:01Z"}},
        {"lease": LEASE | {"until": "2026-03-04T09:03:00"}},
        {"lease": LEASE | {"started": 5}},
        {"lease": LEASE | {"batches": -1}},
        {"lease": LEASE | {"campaigns": [5]}},
        {"stalls": -1},
        {"stalls": "1"},
        {"gaps": {}},
        {"gaps": [GAP | {"start": "soon"}]},
        {"gaps": [{"start": GAP["start"], "end": GAP["end"]}]},
        {"gaps": [GAP | {"attempts": -1}]},
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
        {"backlog": {"t": THREAT | {"failing_since": "2026"}}},
        {"collected": {"t": "now"}},
        {"collected": {"t": -1}},
        {"collected": ["t"]},
    ],
    ids=json.dumps,
)
def test_a_wrong_value_in_any_field_of_ours_is_unreadable(wrong: dict[str, Any]) -> None:
    with pytest.raises(StateUnreadable, match="gs://demo-bucket"):
        read({"version": 1} | wrong)


@pytest.mark.parametrize("sound", [{"lease": LEASE}, {"gaps": [GAP]}, {"backlog": {"t": THREAT}}])
def test_the_samples_above_are_sound_but_for_what_is_changed(sound: dict[str, Any]) -> None:
    assert read({"version": 1} | sound).version == VERSION


def test_a_cursor_an_hour_ahead_is_a_clock_that_was_set_back() -> None:
    assert read({"version": 1, "last_event_time": "2026-03-04T11:00:00Z"}).last_event_time == NOW + HOUR


def test_empty_fields_take_no_room() -> None:
    assert encode(State(VERSION)) == b'{"version":1}'


def test_times_are_written_as_the_published_function_can_read_them() -> None:
    text = json.loads(encode(State(VERSION, last_event_time=NOW)))["last_event_time"]
    assert text == "2026-03-04T10:00:00Z"


def test_a_new_run_is_named_by_its_second() -> None:
    lease = new_lease(State(VERSION), NOW + timedelta(milliseconds=700), 180)
    assert (lease.run_id, lease.started, lease.batches, lease.campaigns) == ("20260304_100000", NOW, 0, [])
    assert lease.until == NOW + timedelta(milliseconds=700, minutes=3)


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
    dead = Lease("20260304_090000", "dead", NOW - HOUR, NOW - 2 * HOUR, 3, ["c1"])
    lease = new_lease(State(VERSION, lease=dead), NOW, 180)
    assert (lease.run_id, lease.started, lease.batches, lease.campaigns) == (
        dead.run_id,
        dead.started,
        3,
        ["c1"],
    )
    assert (lease.owner != "dead", lease.until) == (True, NOW + timedelta(minutes=3))


def test_the_backlogs_turn_is_untried_first_then_priority_then_age() -> None:
    expected = [
        Threat(0, NOW - HOUR),
        Threat(0, NOW),
        Threat(1, NOW - HOUR),
        Threat(2, NOW - 9 * HOUR),
        Threat(0, NOW - HOUR, attempts=5),
        Threat(1, NOW - 9 * HOUR, attempts=1),
    ]
    shuffled = random.Random(1).sample(expected, len(expected))
    assert sorted(shuffled, key=Threat.turn) == expected


def test_a_threat_met_again_keeps_its_place_and_takes_the_better_priority_and_the_campaign() -> None:
    state = State(VERSION)
    assert add_threat(state, "t", Threat(2, NOW - HOUR))
    assert not add_threat(state, "t", Threat(0, NOW, "c1"))
    assert not add_threat(state, "t", Threat(1, NOW, "c2"))
    assert state.backlog == {"t": Threat(0, NOW - HOUR, "c1")}


def test_a_collected_threat_does_not_come_back() -> None:
    state = State(VERSION)
    add_threat(state, "t", Threat(1, NOW))
    settle(state, "t", NOW)
    assert not add_threat(state, "t", Threat(0, NOW))
    assert (state.backlog, state.collected) == ({}, {"t": int(NOW.timestamp())})


def test_with_dedup_off_only_this_runs_threats_are_remembered() -> None:
    state = State(VERSION, lease=Lease("20260304_090000", "o", NOW, NOW - HOUR))
    settle(state, "earlier run", NOW - HOUR - SECOND)
    settle(state, "this run", NOW - HOUR)
    forget(state, NOW, 0)
    assert set(state.collected) == {"this run"}


@pytest.mark.parametrize(("added", "joined"), [((3, 2), (4, 2)), ((5, 4), (5, 3)), ((6, 1), (6, 1))])
def test_gaps_that_touch_become_one_with_the_longest_history(
    added: tuple[int, int], joined: tuple[int, int]
) -> None:
    state = State(VERSION, gaps=[Gap(NOW - 4 * HOUR, NOW - 3 * HOUR, NOW - 2 * HOUR, 5)])
    add_gap(state, window(*added), NOW)
    assert [gap.window() for gap in state.gaps] == [window(*joined)]
    assert (state.gaps[0].since, state.gaps[0].attempts) == (NOW - 2 * HOUR, 5)


def test_closing_the_middle_of_a_gap_leaves_both_ends_with_its_history() -> None:
    state = State(VERSION, gaps=[Gap(NOW - 4 * HOUR, NOW, NOW - HOUR, 2)])
    close_gap(state, window(3, 1))
    since = NOW - HOUR
    assert state.gaps == [Gap(NOW - 4 * HOUR, NOW - 3 * HOUR, since, 2), Gap(NOW - HOUR, NOW, since, 2)]


def test_an_attempt_counts_for_each_gap_that_it_was_about() -> None:
    state = State(VERSION)
    for hours in (6, 4, 2):
        add_gap(state, window(hours, hours - 1), NOW)
    count_attempt(state, window(6, 3), NOW)
    assert [gap.attempts for gap in state.gaps] == [1, 1, 0]


def test_of_a_long_gap_only_what_was_asked_for_counts_an_attempt() -> None:
    state = State(VERSION)
    add_gap(state, window(6, 1), NOW)
    count_attempt(state, window(4, 3), NOW)
    count_attempt(state, window(4, 3), NOW)
    assert [(gap.window(), gap.attempts) for gap in state.gaps] == [
        (window(6, 4), 0),
        (window(4, 3), 2),
        (window(3, 1), 0),
    ]


def test_a_part_of_a_gap_does_not_pass_its_attempts_on_when_it_is_recorded_again() -> None:
    state = State(VERSION)
    add_gap(state, window(6, 1), NOW)
    count_attempt(state, window(4, 3), NOW)
    add_gap(state, window(4, 3), NOW)
    add_gap(state, window(3, 2), NOW)
    assert [gap.attempts for gap in state.gaps] == [0, 1, 0]


def test_what_is_asked_for_again_is_due_at_once_whatever_was_tried_before() -> None:
    state = State(VERSION)
    add_gap(state, window(6, 2), NOW)
    for _ in range(9):
        count_attempt(state, window(6, 2), NOW)
    ask_again(state, window(5, 4), NOW)
    assert [(gap.window(), gap.due(NOW)) for gap in state.gaps] == [
        (window(6, 5), False),
        (window(5, 4), True),
        (window(4, 2), False),
    ]


def test_the_latest_fifty_lost_intervals_are_kept() -> None:
    state = State(VERSION)
    for number in range(60):
        add_lost(state, window(2, 1), str(number))
    assert [lost.why for lost in state.lost] == [str(number) for number in range(10, 60)]
    assert state.lost[0] == Lost(NOW - 2 * HOUR, NOW - HOUR, "10")
