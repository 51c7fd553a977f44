"""A large bucket that a real run has filled, and every kind of defect planted in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tap_forensics.clock import Clock, iso
from tap_forensics.collect import collect
from tap_forensics.config.settings import load_settings
from tap_forensics.records.event_lines import read_line, read_record, to_event
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import EVENT_LISTS, World
from tap_forensics.storage import event_dedup
from tests.support.logs import LogCollector
from tests.support.settings import STATE, environment

HOUR = timedelta(hours=1)
EVIDENCE, EVENTS = "tap-forensics/", "tap-siem/"
INDEX = f"{STATE}.seen"
SETTINGS = {
    "LOOKBACK_HOURS": "24",
    "END_LAG_SECONDS": "0",
    "MAX_THREATS": "100000",
    "EVENTS_PREFIX": "tap-siem",
    "RUN_BUDGET_SECONDS": "600",
}


def make_world(now: datetime, threats: int, events: int) -> World:
    """A day of events, less the last hour. Every tenth threat is in a campaign, every 50th has no report."""
    start = now - 24 * HOUR
    world = World(7, start=start, end=now, messages_per_hour=0, clicks_per_hour=0, campaigns=20, evidences=2)
    answers = {3: "empty", 4: "unknown"}
    made = [
        world.add_threat(
            campaign=world.campaigns[number // 10 % 20] if number % 10 == 0 else None,
            answer=answers.get(number % 100, "report"),
        )
        for number in range(threats)
    ]
    for number in range(events):
        created = start + (now - HOUR - start) * number / events
        threat = made[number % threats]
        world.add_event(EVENT_LISTS[number % 4], [threat.id], created=created)
    return world


@dataclass
class AuditScene:
    """`objects` are the lines of each object, to be changed; `save` writes what changed."""

    tap: TapServer
    bucket: FakeBucket
    env: dict[str, str]
    start: datetime
    objects: dict[str, list[bytes]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    @property
    def world(self) -> World:
        return self.tap.world

    def interval(self) -> list[str]:
        """Up to the cursor, as options of the command."""
        return ["--from", iso(self.start), "--to", self.state["last_event_time"]]

    def load(self) -> None:
        for folder in (EVIDENCE, EVENTS):
            for name, data in self.bucket.objects(folder).items():
                if name.endswith(".ndjson"):
                    self.objects[name] = data.splitlines()
        self.state = json.loads(self.bucket.get(STATE))

    def save(self) -> None:
        for name in self.changed:
            self.bucket.put(name, b"".join(line + b"\n" for line in self.objects[name]))
        self.bucket.put(STATE, json.dumps(self.state))

    def remove_lines(self, folder: str, is_meant: Callable[[bytes], bool]) -> list[bytes]:
        """Takes them out of all objects of a folder."""
        removed = []
        for name, lines in self.objects.items():
            kept = [line for line in lines if not (name.startswith(folder) and is_meant(line))]
            if len(kept) < len(lines):
                removed += [line for line in lines if line not in kept]
                self.objects[name] = kept
                self.changed.add(name)
        return removed

    def remove_threat(self, threat_id: str) -> None:
        mark = f'"_threatId":"{threat_id}"'.encode()
        assert self.remove_lines(EVIDENCE, lambda line: mark in line)

    def remove_event(self, guid: str) -> bytes:
        [line] = self.remove_lines(EVENTS, lambda line: f'"GUID":"{guid}"'.encode() in line)
        return line

    def places(self) -> dict[bytes, str]:
        """Each line's place, as the audit names it."""
        return {
            line: f"{name}:{number}"
            for name, lines in self.objects.items()
            for number, line in enumerate(lines, 1)
        }

    def threats_with_line(self) -> Iterator[str]:
        """Threats outside campaigns, whose evidence is in the bucket."""
        delivered = {
            json.loads(line)["_threatId"]
            for name, lines in self.objects.items()
            if name.startswith(EVIDENCE)
            for line in lines
        }
        for name, threat in self.world.threats.items():
            if threat.campaign is None and name in delivered:
                yield name


def forget_in_index(bucket: FakeBucket, line: bytes) -> None:
    """As if this event had never been delivered."""
    index = event_dedup.decode(bucket.get(INDEX), INDEX)
    del index.entries[key_of(line)]
    bucket.put(INDEX, event_dedup.encode(index))


def key_of(line: bytes) -> int:
    found = read_line(line)
    assert found
    kind, event = found
    return to_event(kind, event, read_record(event)).fingerprint.key


def _run(env: dict[str, str], bucket: FakeBucket) -> datetime:
    """One complete run. Returns when it had ended."""
    stats = collect(load_settings(env), bucket.client, Clock(), LogCollector().logger)
    assert stats.outcome == "complete", stats.reason
    return utc_now()


def _cursor(bucket: FakeBucket) -> datetime:
    return datetime.fromisoformat(json.loads(bucket.get(STATE))["last_event_time"])


@contextmanager
def audit_scene(threats: int, events: int) -> Iterator[AuditScene]:
    """After one complete run."""
    now = utc_now().replace(microsecond=0)
    world = make_world(now, threats, events)
    with TapServer(world, siem_limit=None) as tap, FakeBucket() as bucket:
        env = environment(tap, bucket, **SETTINGS)
        ended = _run(env, bucket)
        # A line is only said to be gone if it was written before the cursor: as in every hour but the last.
        while _cursor(bucket) <= ended:
            _run(env, bucket)
        scene = AuditScene(tap, bucket, env, now - 24 * HOUR + timedelta(minutes=1))
        scene.load()
        yield scene
