"""Event lines: their content; none is lost or delivered twice after crashes and conflicting versions."""

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
from tests.support.lab import FORENSICS, SIEM, START, Lab, open_lab
from tests.support.lab_bucket import Through
from tests.support.settings import STATE
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


def ids(lab: Lab) -> Counter[str]:
    return Counter(event["id"] for event in event_lines(lab))


def test_each_event_of_the_four_lists_is_a_line_in_the_shape_of_the_api() -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS) as lab:
        kinds = ["messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked"]
        for kind in kinds:
            body = {"id": kind, "unheardOf": {"β": [1.50, 1e3]}, "threatsInfoMap": None}
            lab.world.add_event(kind, created=TAKEN, body=body)
        stats = lab.run().stats
        lines = [json.loads(line) for data in event_objects(lab).values() for line in data.splitlines()]
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
        (name,) = event_objects(lab)
        assert name == f"{EVENTS}/tap_siem_events_{stats.run_id}.ndjson"


def test_a_flat_line_is_the_event_itself_and_its_own_bytes() -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, EVENTS_SHAPE="flat") as lab:
        lab.world.add_event(
            "clicksBlocked", created=TAKEN, body={"b": 1.0, "a": "é☕", "threatStatus": "active"}
        )
        lab.run()
        (data,) = event_objects(lab).values()
        ours = '"eventType":"clicksBlocked","_eventType":"clicksBlocked"'
        assert data.decode() == '{"b":1.0,"a":"é☕","threatStatus":"active",' + ours + "}\n"


def test_without_a_prefix_nothing_changes() -> None:
    with open_lab(busy_world()) as lab:
        stats = lab.run().stats
        assert stats.event_lines == stats.event_objects == 0
        assert all(name.startswith(("tap-forensics/", "state/")) for name in lab.bucket.names())
        assert SEEN not in lab.bucket.names()


def test_without_forensics_it_is_a_collector_of_events_with_a_checkpoint_of_its_own() -> None:
    with open_lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        stats = lab.run().stats
        assert stats.outcome == "complete"
        assert stats.event_lines == len(lab.world.events)
        assert lab.tap.calls_to(FORENSICS) == []
        assert "backlog" not in lab.state()
        assert lab.state()["last_event_time"] > (START - 2 * MINUTE).isoformat()


def test_overlaps_bring_no_event_twice_and_an_idle_run_writes_no_object() -> None:
    with open_lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        lab.run()
        before = (lab.bucket.names(), lab.bucket.generation(SEEN))
        for _ in range(12):
            lab.clock.step(minutes=5)
            stats = lab.run().stats
            assert stats.event_lines == stats.event_objects == 0
            assert stats.siem_calls <= 2
        assert (lab.bucket.names(), lab.bucket.generation(SEEN)) == before
        assert len(event_lines(lab)) == len(lab.world.events)


@pytest.mark.parametrize("recreated", [False, True])
def test_a_new_verdict_comes_once_more_and_says_that_it_is_an_update(recreated: bool) -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        event = lab.world.add_event("clicksPermitted", ["a" * 64], created=TAKEN)
        lab.world.rejudge(event, Verdict(START + 7 * MINUTE, "cleared", "c1"), recreated=recreated)
        for _ in range(4):
            lab.run()
            lab.clock.step(minutes=5)
        versions = [(e["threatStatus"], e.get("_update")) for e in event_lines(lab)]
        assert versions == [("active", None), ("cleared", True)]


def test_a_verdict_days_later_is_known_as_an_update_while_the_memory_has_room() -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        event = lab.world.add_event("clicksPermitted", ["a" * 64], created=TAKEN)
        lab.world.rejudge(event, Verdict(START + timedelta(days=3), "cleared"), recreated=True)
        for _ in range(8):
            lab.run()
            lab.clock.step(hours=12)
        assert [e.get("_update") for e in event_lines(lab)] == [None, True]


def test_both_versions_side_by_side_in_one_answer_come_once_each() -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        for status in ("active", "cleared"):
            lab.world.add_event("clicksBlocked", created=TAKEN, body={"id": "1", "threatStatus": status})
        for _ in range(5):
            lab.run()
            lab.clock.step(minutes=5)
        assert sorted(e["threatStatus"] for e in event_lines(lab)) == ["active", "cleared"]


def test_copies_for_several_recipients_are_events_of_their_own() -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        for name in ("one", "two"):
            body = {"GUID": "same", "messageTime": "same", "recipient": [f"{name}@example.com"]}
            lab.world.add_event("messagesDelivered", created=TAKEN, body=body)
        lab.run()
        assert len(event_lines(lab)) == 2


def test_what_an_event_says_under_our_own_names_gives_way() -> None:
    raw = b'{"clicksBlocked":[{"id":"1","_update":true,"\\u005feventType":"x","_key":"y"},7,null,"text"]}'
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        lab.tap.faults.add(SIEM, Fault("body", body=raw))
        stats = lab.run().stats
        assert event_lines(lab) == [{"id": "1", "_eventType": "clicksBlocked"}]
        assert stats.odd_entries == 3


def test_an_answer_with_line_ends_between_its_values_becomes_lines() -> None:
    raw = json.dumps({"clicksBlocked": [{"id": "1", "list": [1, 2]}, {}]}, indent=2).encode()
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        lab.tap.faults.add(SIEM, Fault("body", body=raw))
        lab.run()
        assert len(event_lines(lab)) == 2


@pytest.mark.parametrize("at", range(6, 13))
def test_an_event_too_long_for_a_line_is_cut_with_a_note_and_known_again_after_a_kill(at: int) -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        body = {"id": "1", "subject": "x" * 4_000_000, "threatStatus": "active"}
        lab.world.add_event("clicksBlocked", created=TAKEN, body=body)
        dead_lease = run_and_die(lab, at, landed=True)
        lab.clock.step(minutes=5)
        result = lab.run()
        (event,) = event_lines(lab)
        assert event["subject"] == {"_bytes": 4_000_002}
        assert event["id"] == "1"
        assert max(map(len, event_objects(lab).values())) < LONGEST_LINE_BYTES
        assert dead_lease.has_message("too large", logging.WARNING) or result.has_message(
            "too large", logging.WARNING
        )


@pytest.mark.parametrize("landed", [False, True])
def test_killed_at_every_call_to_the_bucket_each_event_comes_once(landed: bool) -> None:
    at = 0
    while True:
        at += 1
        with open_lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
            lab.batch_bytes = SMALL_BATCH_BYTES
            dead_lease = run_and_die(lab, at, landed=landed)
            assert len(event_objects(lab)) <= 9
            lab.clock.step(minutes=5)
            lab.run()
            found = Counter(json.dumps(event, sort_keys=True) for event in event_lines(lab))
            assert len(found) == len(lab.world.events)
            assert set(found.values()) == {1}
            if dead_lease.error is None:
                break
    assert at > 6


def test_what_a_zombie_wrote_under_the_name_is_not_written_again() -> None:
    with (
        open_lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab,
        open_lab(busy_world()) as other,
    ):
        lab.batch_bytes = other.batch_bytes = SMALL_BATCH_BYTES
        theirs = other.run(EVENTS_PREFIX=EVENTS, FORENSICS="off").stats
        first = event_objects(other)[f"{EVENTS}/tap_siem_events_{theirs.run_id}.ndjson"]
        some = b"".join(first.splitlines(keepends=True)[:3])
        lab.bucket.put(f"{EVENTS}/tap_siem_events_{START:%Y%m%d_%H%M%S}.ndjson", some)
        result = lab.run()
        assert result.has_message("Another run had written", logging.WARNING)
        found = Counter(json.dumps(event, sort_keys=True) for event in event_lines(lab))
        assert len(found) == len(lab.world.events)
        assert set(found.values()) == {1}


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"tap_seen":2,"run_id":"","batches":0,"count":0}\n', b"\xff" * 99]
)
def test_a_memory_that_cannot_be_read_fails_the_run_and_nothing_is_touched(data: bytes) -> None:
    with open_lab(busy_world(), EVENTS_PREFIX=EVENTS) as lab:
        lab.bucket.put(SEEN, data)
        result = lab.run()
        assert isinstance(result.failure, StateUnreadable)
        assert result.has_message(SEEN, logging.ERROR)
        assert lab.bucket.get(SEEN) == data
        assert event_objects(lab) == lab.evidence() == {}
        assert lab.tap.calls == []
        assert lab.state()["gaps"]


def test_a_memory_that_cannot_be_kept_leaves_the_lease_to_whoever_makes_it_anew() -> None:
    with open_lab(busy_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        with lab.through(NoIndexWritten()):
            assert isinstance(lab.run().failure, StorageFailed)
        assert "lease" in lab.state()
        lab.clock.step(minutes=5)
        lab.run()
        assert len(event_lines(lab)) == len(lab.world.events)
        assert "lease" not in lab.state()


def test_since_time_is_where_the_first_run_begins_and_a_state_wins_over_it() -> None:
    since = (START - timedelta(hours=5)).isoformat()
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off", SINCE_TIME=since) as lab:
        lab.world.add_event("clicksBlocked", created=START - timedelta(hours=4), body={"id": "1"})
        lab.run()
        assert len(lab.tap.calls_to(SIEM)) == 5
        assert [e["id"] for e in event_lines(lab)] == ["1"]
        lab.tap.forget_calls()
        lab.clock.step(minutes=5)
        lab.run()
        assert len(lab.tap.calls_to(SIEM)) == 2


def test_statuses_and_types_are_asked_for_as_given_and_json_always() -> None:
    with open_lab(busy_world(), EVENTS_PREFIX=EVENTS) as lab:
        asked: list[dict[str, list[str]]] = []
        answer = lab.tap.answer

        def spy(request: Request) -> Response:
            if request.path == SIEM:
                asked.append(dict(request.args))
            return answer(request)

        lab.tap.answer = spy  # type: ignore[method-assign]  # the journal keeps one value a parameter
        lab.run()
        lab.clock.step(hours=2)
        lab.run(THREAT_STATUS="active, falsePositive", THREAT_TYPE="url")
        assert all(args["format"] == ["json"] for args in asked)
        assert "threatStatus" not in asked[0]
        assert asked[-1]["threatStatus"] == ["active", "falsePositive"]
        assert asked[-1]["threatType"] == ["url"]


def test_the_working_state_lies_outside_both_feeds() -> None:
    with open_lab(busy_world(), EVENTS_PREFIX="state", FORENSICS="off") as lab:
        lab.run()
        names = lab.bucket.names()
        assert "working-state/tap-forensics/state.json" in names
        assert "working-state/tap-forensics/state.json.seen" in names
        assert all("tap_siem_events" in name for name in names if name.startswith("state/"))
        assert STATE not in names
