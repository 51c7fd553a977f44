"""The published function's own object, as a run leaves it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from tap_forensics.config.state_location import StateLocation
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.state import VERSION, Gap, State, encode
from tap_forensics.storage.state_store import StateStore, is_marked
from tests.support.clocks import NOW, MovableClock
from tests.support.lab_bucket import LabBucket
from tests.support.settings import HANDOVER, STATE
from tests.support.states import HOUR, Hold, acquired, put

THEIRS = b'{"last_event_time": "2026-03-04T08:00:00+00:00"}'


@pytest.mark.parametrize("cursor", [NOW - HOUR, NOW - HOUR + timedelta(microseconds=123456)])
def test_the_published_function_gets_its_object_back_with_our_mark(
    lab: LabBucket, hold: Hold, cursor: datetime
) -> None:
    put(lab, State(VERSION, last_event_time=cursor))
    acquired(hold()).write_legacy_state()
    written = {"last_event_time": cursor.isoformat(), "written_by": "tap-forensics"}
    assert json.loads(lab.get(HANDOVER)) == written
    assert is_marked(lab.get(HANDOVER))


def test_it_would_go_on_from_the_oldest_open_window(lab: LabBucket, hold: Hold) -> None:
    gaps = [
        Gap(start=NOW - 5 * HOUR, end=NOW - 4 * HOUR, planned_at=NOW),
        Gap(start=NOW - HOUR, end=NOW, planned_at=NOW),
    ]
    put(lab, State(VERSION, last_event_time=NOW, gaps=gaps))
    acquired(hold()).write_legacy_state()
    assert json.loads(lab.get(HANDOVER))["last_event_time"] == "2026-03-04T05:00:00+00:00"


def test_an_object_that_is_up_to_date_is_not_written_again(lab: LabBucket, hold: Hold) -> None:
    put(lab, State(VERSION, last_event_time=NOW))
    store = acquired(hold())
    store.write_legacy_state()
    before = lab.generation(HANDOVER)
    store.write_legacy_state()
    assert lab.generation(HANDOVER) == before


def test_an_object_without_our_mark_is_told_of_and_brought_up_to_date(lab: LabBucket, hold: Hold) -> None:
    put(lab, State(VERSION, last_event_time=NOW))
    lab.put(HANDOVER, THEIRS)
    store = acquired(hold())
    assert store.write_legacy_state()
    assert json.loads(lab.get(HANDOVER))["last_event_time"] == "2026-03-04T10:00:00+00:00"
    assert not store.write_legacy_state()


def test_an_object_with_our_mark_is_not_told_of(lab: LabBucket, hold: Hold) -> None:
    put(lab, State(VERSION, last_event_time=NOW))
    store = acquired(hold())
    assert not store.write_legacy_state()
    with store.transaction() as state:
        state.last_event_time = NOW + HOUR
    assert not store.write_legacy_state()


@pytest.mark.parametrize("state", [None, b'{"version":1,"last_event_time":"2026-03-04T09:00:00Z"}'])
def test_where_the_state_is_new_an_object_without_our_mark_is_no_news(
    lab: LabBucket, hold: Hold, state: bytes | None
) -> None:
    lab.put(HANDOVER, THEIRS)
    if state:
        lab.put(STATE, state)
    store = acquired(hold())
    assert not store.write_legacy_state()
    assert is_marked(lab.get(HANDOVER))
    lab.put(HANDOVER, THEIRS)
    assert store.write_legacy_state()


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"{", THEIRS, b'{"last_event_time":"","written_by":"x"}']
)
def test_what_others_wrote_has_not_our_mark(data: bytes) -> None:
    assert not is_marked(data)


def test_without_a_cursor_the_published_functions_object_is_not_written(lab: LabBucket, hold: Hold) -> None:
    acquired(hold()).write_legacy_state()
    assert lab.names() == [STATE]


def test_a_state_key_of_its_own_has_no_second_object(lab: LabBucket, clock: MovableClock) -> None:
    lab.put("elsewhere.json", encode(State(VERSION, last_event_time=NOW)))
    bucket = Bucket(lab.client(), lab.name, lambda: 30.0)
    acquired(
        StateStore(bucket, StateLocation("elsewhere.json", None), clock.as_clock, 180)
    ).write_legacy_state()
    assert lab.names() == ["elsewhere.json"]


def test_whoever_changes_the_published_functions_object_meanwhile_wins(lab: LabBucket, hold: Hold) -> None:
    put(lab, State(VERSION, last_event_time=NOW))
    store = acquired(hold())
    read = store._bucket.read

    def read_then_changed(name: str) -> object:
        found = read(name)
        lab.put(HANDOVER, b"theirs")
        return found

    store._bucket.read = read_then_changed  # type: ignore[method-assign, assignment]  # someone writes between our read and our write
    assert not store.write_legacy_state()
    assert lab.get(HANDOVER) == b"theirs"
