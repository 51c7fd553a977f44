"""Every kind of defect in a bucket with 50,000 events and 2,000 threats: each is named, nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.clock import iso
from tap_forensics.sandbox.world import WorldEvent
from tap_forensics.storage.state import RUN_ID_FORMAT
from tests.support.audit_scene import EVENTS, EVIDENCE, HOUR, AuditScene, audit_scene, forget_in_index
from tests.support.peak import Measured, measured

THREATS, EVENT_COUNT = 2_000, 50_000
MOST_MEBIBYTES = 200
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Planted:
    """`expected`: kind → the names that the audit must give, and no other."""

    def __init__(self, scene: AuditScene) -> None:
        self.scene = scene
        self.now = scene.start + 24 * HOUR
        self.expected: dict[str, set[str]] = {}
        self._threats = scene.threats_with_line()
        # Each from another window, and so from another object: only what is planted changes.
        self._events = iter(scene.world.events[EVENT_COUNT // 2 :: 3000])
        self._places: list[tuple[str, bytes]] = []
        self.threats()
        self.events()
        self.what_is_no_defect()
        self.repetitions()
        self.unreadable()
        scene.save()
        # Only now is it known where each line is.
        places = scene.places()
        for kind, line in self._places:
            self.expect(kind, places[line])

    def expect(self, kind: str, name: str) -> None:
        self.expected.setdefault(kind, set()).add(name)

    def next_threat(self) -> str:
        return next(self._threats)

    def next_event(self) -> WorldEvent:
        return next(self._events)

    def threats(self) -> None:
        scene = self.scene
        for name, threat in scene.world.threats.items():
            if threat.answer != "report":
                self.expect("threats_without_report", name)
        # Over DEDUP_HOURS ago: the state no longer knows that TAP had none, so TAP is asked.
        for answer in ("empty", "unknown"):
            old = next(name for name, threat in scene.world.threats.items() if threat.answer == answer)
            del scene.state["collected"][old]
        waiting, expired = self.next_threat(), self.next_threat()
        for name in (waiting, expired):
            scene.remove_threat(name)
            del scene.state["collected"][name]
        seen = iso(self.now)
        scene.state["backlog"] = {
            waiting: {"priority": 1, "first_seen": seen, "last_seen": seen, "attempts": 3, "tried": seen}
        }
        self.expect("threats_open", waiting)
        self.expect("threats_missing", expired)
        *_, member = (name for name, threat in scene.world.threats.items() if threat.campaign)
        scene.remove_threat(member)
        del scene.state["collected"][member]
        self.expect("threats_covered", member)

    def events(self) -> None:
        scene = self.scene
        for kind in ("events_missing", "events_undecided", "events_open"):
            event = self.next_event()
            line = scene.remove_event(event.body["GUID"])
            if kind != "events_undecided":
                forget_in_index(scene.bucket, line)
            if kind == "events_open":
                minute = timedelta(minutes=1)
                window = {"start": iso(event.created - minute), "end": iso(event.created + minute)}
                scene.state["gaps"] = [
                    {**window, "since": iso(self.now), "attempts": 2, "tried": iso(self.now)}
                ]
            self.expect(kind, label(event))
        gone = self.next_event()
        [line] = [line for line in self.lines(EVENTS) if gone.body["GUID"].encode() in line]
        scene.world.events.remove(gone)
        self._places.append(("lines_gone", line))

    def what_is_no_defect(self) -> None:
        """What looks like a repetition: after DEDUP_HOURS, of a campaign in another run, an update, parts."""
        evidence = [json.loads(line) for line in self.lines(EVIDENCE)]
        threat = next(line for line in evidence if line["scope"] == "THREAT")
        campaign = next(line for line in evidence if line["scope"] == "CAMPAIGN")
        parts = [threat | {"_part": number, "_parts": 2} for number in (1, 2)]
        self.put(EVIDENCE, 30, *parts, threat)
        self.put(EVIDENCE, 3, campaign | {"generated": "2026-01-01T00:00:00Z"})
        event = self.next_event()
        [line] = [line for line in self.lines(EVENTS) if event.body["GUID"].encode() in line]
        status = b'"threatStatus":"active"'
        assert status in line
        self.put_lines(
            EVENTS, 3, line.replace(status, b'"threatStatus":"cleared"')[:-3] + b',"_update":true}]}'
        )

    def repetitions(self) -> None:
        threat = f'"_threatId":"{self.next_threat()}"'.encode()
        evidence = next(line for line in self.lines(EVIDENCE) if threat in line)
        event = next(self.lines(EVENTS))
        for folder, line in ((EVIDENCE, evidence), (EVENTS, event)):
            name = self.put_lines(folder, -1, line)
            self.expect("lines_twice", f"{name}:1")

    def unreadable(self) -> None:
        bucket = self.scene.bucket
        stamp = self.run_id(5)
        contents = {
            f"{EVIDENCE}tap_forensics_{stamp}.ndjson": b"",
            f"{EVIDENCE}/tap_forensics_{stamp}.ndjson": b"{}\n",
            f"{EVENTS}tap_siem_events_{stamp}.ndjson": b'{"a":"' + b"x" * 4_000_000 + b'"}\n{}\n',
            f"{EVENTS}notes.ndjson": b'{"a":1}\n{"a":"\xff"}\n',
            f"{EVENTS}tap_siem_events_{self.run_id(6)}.ndjson": b'{"messagesDelivered":[{"a":1\n',
        }
        numbers = iter(("", "", ":1", ":2", ":1"))
        for name, data in contents.items():
            bucket.put(name, data)
            self.expect("objects_unreadable", name + next(numbers))

    def lines(self, folder: str) -> Iterator[bytes]:
        for name, lines in self.scene.objects.items():
            if name.startswith(folder):
                yield from lines

    def put(self, folder: str, hours_ago: int, *documents: dict[str, Any]) -> None:
        self.put_lines(
            folder, hours_ago, *(json.dumps(one, separators=(",", ":")).encode() for one in documents)
        )

    def put_lines(self, folder: str, hours_ago: int, *lines: bytes) -> str:
        """As the first object of a run so long ago."""
        stem = "tap_forensics" if folder == EVIDENCE else "tap_siem_events"
        name = f"{folder}{stem}_{self.run_id(hours_ago)}.ndjson"
        self.scene.bucket.put(name, b"".join(line + b"\n" for line in lines))
        return name

    def run_id(self, hours_ago: int) -> str:
        return (self.now - hours_ago * HOUR).strftime(RUN_ID_FORMAT)


def label(event: WorldEvent) -> str:
    body, is_click = event.body, event.kind.startswith("clicks")
    moment = body["clickTime" if is_click else "messageTime"]
    recipient = body["recipient"] if is_click else body["recipient"][0]
    return f"{event.kind} {moment} {body.get('id') or body['GUID']} {recipient}"


@pytest.fixture(scope="module")
def planted() -> Iterator[Planted]:
    with audit_scene(THREATS, EVENT_COUNT) as scene:
        yield Planted(scene)


@pytest.fixture(scope="module")
def result(planted: Planted) -> Measured:
    scene = planted.scene
    before = scene.bucket.names(), scene.bucket.generation("state/tap-forensics/state.json")
    done = measured("audit", *scene.interval(), "--json", env=scene.env)
    assert before == (scene.bucket.names(), scene.bucket.generation("state/tap-forensics/state.json"))
    return done


def test_each_defect_is_named_and_nothing_else(planted: Planted, result: Measured) -> None:
    assert result.code == 1, result.stderr
    findings = json.loads(result.stdout)["findings"]
    named = {kind: {one["name"] for one in found["named"]} for kind, found in findings.items()}
    assert named == planted.expected
    assert {kind: found["count"] for kind, found in findings.items()} == {
        kind: len(names) for kind, names in planted.expected.items()
    }


def test_the_table_counts_what_tap_shows(planted: Planted, result: Measured) -> None:
    days = json.loads(result.stdout)["days"]
    events = [row for row in days if row["kind"] != "threats"]
    missing = ("events_missing", "events_undecided", "events_open")
    assert sum(row["missing"] for row in events) == sum(len(planted.expected[kind]) for kind in missing)
    assert sum(row["shown"] for row in events) > EVENT_COUNT * 0.9
    threats = [row for row in days if row["kind"] == "threats"]
    assert sum(row["shown"] for row in threats) == THREATS
    assert sum(row["missing"] for row in threats) == 2


def test_memory_stays_small(result: Measured) -> None:
    assert result.peak_mebibytes < MOST_MEBIBYTES, result.peak_mebibytes
