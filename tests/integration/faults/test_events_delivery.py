"""Event lines: what they look like, that none is lost and none comes twice, whatever dies or disagrees."""

from __future__ import annotations

import json
import logging
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import requests
from requests import PreparedRequest

from tap_forensics.errors import StateUnreadable, StorageFailed
from tap_forensics.records.ndjson import LONGEST_LINE_BYTES
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.http_messages import Request, Response
from tap_forensics.sandbox.world import Rates, Verdict, World
from tests.support.events_lab import EVENTS, SEEN, event_lines, event_objects
from tests.support.lab import FORENSICS, SIEM, START, STATE, Lab, lab
from tests.support.lab_bucket import Through
from tests.support.world_faults import run_and_die

MINUTE = timedelta(minutes=1)
TAKEN = START - 10 * MINUTE
# A few events fill an object.
SMALL_BATCH_BYTES = 12_000


class NoIndexWritten(Through):
    """A bucket that fails each time the event dedup index is written."""

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if request.method == "POST" and SEEN in str(request.body):
            raise OSError("the index cannot be written")
        return super().send(request, *args, **kwargs)


def quiet_world() -> World:
    """Without any event but those that a test adds."""
    return World(1, start=START - timedelta(hours=8), end=START, messages_per_hour=0, clicks_per_hour=0)


def busy_world() -> World:
    odds = Rates(false_positive=0, late_minutes=0)
    return World(7, start=START - 55 * MINUTE, end=START - 2 * MINUTE, campaigns=0, odds=odds)


def ids(the: Lab) -> Counter[str]:
    return Counter(event["id"] for event in event_lines(the))


def test_each_event_of_the_four_lists_is_a_line_in_the_shape_of_the_api() -> None:
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS) as the:
        kinds = ["messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked"]
        for kind in kinds:
            body = {"id": kind, "unheardOf": {"β": [1.50, 1e3]}, "threatsInfoMap": None}
            the.world.add_event(kind, created=TAKEN, body=body)
        stats = the.run().good
        lines = [json.loads(line) for data in event_objects(the).values() for line in data.splitlines()]
        assert {next(iter(line)) for line in lines} == set(kinds)
        for line in lines:
            (kind, [event]), *more = line.items()
            assert not more
            assert event == {
                "id": kind,
                "unheardOf": {"β": [1.5, 1000.0]},
                "threatsInfoMap": None,
                "_eventType": kind,
            }
        assert (stats.event_lines, stats.event_objects) == (4, 1)
        (name,) = event_objects(the)
        assert name == f"{EVENTS}/tap_siem_events_{stats.run_id}.ndjson"


def test_a_flat_line_is_the_event_itself_and_its_own_bytes() -> None:
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, EVENTS_SHAPE="flat") as the:
        the.world.add_event(
            "clicksBlocked", created=TAKEN, body={"b": 1.0, "a": "é☕", "threatStatus": "active"}
        )
        the.run()
        (data,) = event_objects(the).values()
        assert data.decode() == '{"b":1.0,"a":"é☕","threatStatus":"active","_eventType":"clicksBlocked"}\n'


def test_without_a_prefix_nothing_changes() -> None:
    with lab(busy_world()) as the:
        stats = the.run().good
        assert stats.event_lines == stats.event_objects == 0
        assert all(name.startswith(("tap-forensics/", "state/")) for name in the.bucket.names())
        assert SEEN not in the.bucket.names()


def test_without_forensics_it_is_a_collector_of_events_with_a_checkpoint_of_its_own() -> None:
    with lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        stats = the.run().good
        assert stats.outcome == "complete"
        assert stats.event_lines == len(the.world.events)
        assert the.tap.calls_to(FORENSICS) == []
        assert "backlog" not in the.state()
        assert the.state()["last_event_time"] > (START - 2 * MINUTE).isoformat()


def test_overlaps_bring_no_event_twice_and_an_idle_run_writes_no_object() -> None:
    with lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        the.run()
        before = (the.bucket.names(), the.bucket.generation(SEEN))
        for _ in range(12):
            the.time.advance(minutes=5)
            stats = the.run().good
            assert stats.event_lines == stats.event_objects == 0
            assert stats.siem_calls <= 2
        assert (the.bucket.names(), the.bucket.generation(SEEN)) == before
        assert len(event_lines(the)) == len(the.world.events)


@pytest.mark.parametrize("recreated", [False, True])
def test_a_new_verdict_comes_once_more_and_says_that_it_is_an_update(recreated: bool) -> None:
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        event = the.world.add_event("clicksPermitted", ["a" * 64], created=TAKEN)
        the.world.rejudge(event, Verdict(START + 7 * MINUTE, "cleared", "c1"), recreated=recreated)
        for _ in range(4):
            the.run()
            the.time.advance(minutes=5)
        told = [(e["threatStatus"], e.get("_update")) for e in event_lines(the)]
        assert told == [("active", None), ("cleared", True)]


def test_a_verdict_days_later_is_known_as_an_update_while_the_memory_has_room() -> None:
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        event = the.world.add_event("clicksPermitted", ["a" * 64], created=TAKEN)
        the.world.rejudge(event, Verdict(START + timedelta(days=3), "cleared"), recreated=True)
        for _ in range(8):
            the.run()
            the.time.advance(hours=12)
        assert [e.get("_update") for e in event_lines(the)] == [None, True]


def test_both_versions_side_by_side_in_one_answer_come_once_each() -> None:
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        for status in ("active", "cleared"):
            the.world.add_event("clicksBlocked", created=TAKEN, body={"id": "1", "threatStatus": status})
        for _ in range(5):
            the.run()
            the.time.advance(minutes=5)
        assert sorted(e["threatStatus"] for e in event_lines(the)) == ["active", "cleared"]


def test_copies_for_several_recipients_are_events_of_their_own() -> None:
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        for name in ("one", "two"):
            body = {"GUID": "same", "messageTime": "same", "recipient": [f"{name}@example.com"]}
            the.world.add_event("messagesDelivered", created=TAKEN, body=body)
        the.run()
        assert len(event_lines(the)) == 2


def test_what_an_event_says_under_our_own_names_gives_way() -> None:
    raw = b'{"clicksBlocked":[{"id":"1","_update":true,"\\u005feventType":"x","_key":"y"},7,null,"text"]}'
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        the.tap.faults.add(SIEM, Fault("body", body=raw))
        stats = the.run().good
        assert event_lines(the) == [{"id": "1", "_eventType": "clicksBlocked"}]
        assert stats.odd_entries == 3


def test_an_answer_with_line_ends_between_its_values_becomes_lines() -> None:
    raw = json.dumps({"clicksBlocked": [{"id": "1", "list": [1, 2]}, {}]}, indent=2).encode()
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        the.tap.faults.add(SIEM, Fault("body", body=raw))
        the.run()
        assert len(event_lines(the)) == 2


@pytest.mark.parametrize("at", range(6, 13))
def test_an_event_too_long_for_a_line_is_cut_with_a_note_and_known_again_after_a_kill(at: int) -> None:
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        body = {"id": "1", "subject": "x" * 4_000_000, "threatStatus": "active"}
        the.world.add_event("clicksBlocked", created=TAKEN, body=body)
        dead_lease = run_and_die(the, at, landed=True)
        the.time.advance(minutes=5)
        ran = the.run()
        (event,) = event_lines(the)
        assert event["subject"] == {"_bytes": 4_000_002}
        assert event["id"] == "1"
        assert max(map(len, event_objects(the).values())) < LONGEST_LINE_BYTES
        assert dead_lease.says("too large", logging.WARNING) or ran.says("too large", logging.WARNING)


@pytest.mark.parametrize("landed", [False, True])
def test_killed_at_every_call_to_the_bucket_each_event_comes_once(landed: bool) -> None:
    at = 0
    while True:
        at += 1
        with lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
            the.batch_bytes = SMALL_BATCH_BYTES
            dead_lease = run_and_die(the, at, landed=landed)
            assert len(event_objects(the)) <= 9
            the.time.advance(minutes=5)
            the.run()
            found = Counter(json.dumps(event, sort_keys=True) for event in event_lines(the))
            assert len(found) == len(the.world.events)
            assert set(found.values()) == {1}
            if dead_lease.error is None:
                break
    assert at > 6


def test_what_a_sleeper_wrote_under_the_name_is_not_written_again() -> None:
    with lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the, lab(busy_world()) as other:
        the.batch_bytes = other.batch_bytes = SMALL_BATCH_BYTES
        theirs = other.run(EVENTS_PREFIX=EVENTS, FORENSICS="off").good
        first = event_objects(other)[f"{EVENTS}/tap_siem_events_{theirs.run_id}.ndjson"]
        some = b"".join(first.splitlines(keepends=True)[:3])
        the.bucket.put(f"{EVENTS}/tap_siem_events_{START:%Y%m%d_%H%M%S}.ndjson", some)
        ran = the.run()
        assert ran.says("Another run had written", logging.WARNING)
        found = Counter(json.dumps(event, sort_keys=True) for event in event_lines(the))
        assert len(found) == len(the.world.events)
        assert set(found.values()) == {1}


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"tap_seen":2,"run_id":"","batches":0,"count":0}\n', b"\xff" * 99]
)
def test_a_memory_that_cannot_be_read_fails_the_run_and_nothing_is_touched(data: bytes) -> None:
    with lab(busy_world(), EVENTS_PREFIX=EVENTS) as the:
        the.bucket.put(SEEN, data)
        ran = the.run()
        assert isinstance(ran.failure, StateUnreadable)
        assert ran.says(SEEN, logging.ERROR)
        assert the.bucket.get(SEEN) == data
        assert event_objects(the) == the.evidence() == {}
        assert the.tap.calls == []
        assert the.state()["gaps"]


def test_a_memory_that_cannot_be_kept_leaves_the_lease_to_whoever_makes_it_anew() -> None:
    with lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        with the.through(NoIndexWritten()):
            assert isinstance(the.run().failure, StorageFailed)
        assert "lease" in the.state()
        the.time.advance(minutes=5)
        the.run()
        assert len(event_lines(the)) == len(the.world.events)
        assert "lease" not in the.state()


def test_since_time_is_where_the_first_run_begins_and_a_state_wins_over_it() -> None:
    since = (START - timedelta(hours=5)).isoformat()
    with lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off", SINCE_TIME=since) as the:
        the.world.add_event("clicksBlocked", created=START - timedelta(hours=4), body={"id": "1"})
        the.run()
        assert len(the.tap.calls_to(SIEM)) == 5
        assert [e["id"] for e in event_lines(the)] == ["1"]
        the.tap.forget_calls()
        the.time.advance(minutes=5)
        the.run()
        assert len(the.tap.calls_to(SIEM)) == 2


def test_statuses_and_types_are_asked_for_as_given_and_json_always() -> None:
    with lab(busy_world(), EVENTS_PREFIX=EVENTS) as the:
        asked: list[dict[str, list[str]]] = []
        answer = the.tap.answer

        def spy(request: Request) -> Response:
            if request.path == SIEM:
                asked.append(dict(request.args))
            return answer(request)

        the.tap.answer = spy  # type: ignore[method-assign]  # the journal keeps one value a parameter
        the.run()
        the.time.advance(hours=2)
        the.run(THREAT_STATUS="active, falsePositive", THREAT_TYPE="url")
        assert all(args["format"] == ["json"] for args in asked)
        assert "threatStatus" not in asked[0]
        assert asked[-1]["threatStatus"] == ["active", "falsePositive"]
        assert asked[-1]["threatType"] == ["url"]


def test_the_working_state_lies_outside_both_feeds() -> None:
    with lab(busy_world(), EVENTS_PREFIX="state", FORENSICS="off") as the:
        the.run()
        names = the.bucket.names()
        assert "working-state/tap-forensics/state.json" in names
        assert "working-state/tap-forensics/state.json.seen" in names
        assert all("tap_siem_events" in name for name in names if name.startswith("state/"))
        assert STATE not in names
