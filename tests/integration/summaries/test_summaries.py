"""The third feed: one line for each threat that was seen."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.routes import FORENSICS, THREAT_SUMMARY
from tap_forensics.sandbox.world import World
from tests.support.lab import SIEM, START, Lab, open_lab
from tests.support.scenes import once_each, threats_at

PREFIX = "tap-summaries"


@contextmanager
def open_summaries(world: World | None = None, **env: str) -> Iterator[Lab]:
    with open_lab(world) as lab:
        lab.env.update(env, SUMMARIES_PREFIX=PREFIX)
        yield lab


def summaries(lab: Lab) -> list[dict[str, Any]]:
    objects = sorted(lab.bucket.objects(f"{PREFIX}/").items())
    return [json.loads(line) for _, data in objects for line in data.splitlines()]


def delivered(lab: Lab) -> Counter[str]:
    return Counter(line["_threatId"] for line in summaries(lab))


def test_each_threat_that_was_seen_gets_a_line_with_taps_own_fields() -> None:
    with open_summaries() as lab:
        stats = lab.run().stats
        assert delivered(lab) == Counter(list(lab.world.threats))
        for line in summaries(lab):
            name = line.pop("_threatId")
            assert line == lab.world.summary(name, lab.clock.now())
        (name,) = lab.bucket.objects(f"{PREFIX}/")
        assert name == f"{PREFIX}/tap_threat_summaries_{stats.run_id}.ndjson"
        assert (stats.summaries, stats.summary_objects, stats.summary_calls) == (10, 1, 10)
        assert once_each(lab)


def test_without_the_setting_no_summary_is_requested() -> None:
    with open_lab() as lab:
        lab.run()
        assert lab.tap.calls_to(THREAT_SUMMARY) == []
        assert "summaries" not in lab.state()


def test_summaries_come_without_forensics_and_when_these_cannot_be_fetched() -> None:
    with open_summaries(FORENSICS="off") as lab:
        assert lab.run().stats.outcome == "complete"
        assert len(delivered(lab)) == 10
        assert lab.tap.calls_to(FORENSICS) == []
    with open_summaries() as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        lab.run()
        assert len(delivered(lab)) == 10


def seen_again(lab: Lab) -> None:
    for name in lab.world.threats:
        lab.world.add_event("messagesBlocked", [name], created=lab.clock.now() - timedelta(minutes=10))


def test_a_later_event_with_the_same_status_brings_no_second_line() -> None:
    with open_summaries() as lab:
        for _ in range(4):
            lab.run()
            lab.clock.step(hours=1)
            seen_again(lab)
        lab.run()
        assert set(delivered(lab).values()) == {1}


def test_a_later_event_with_another_status_brings_one_more_line() -> None:
    with open_summaries() as lab:
        lab.run()
        changed, flipped = list(lab.world.threats)[:2]
        lab.clock.step(hours=1)
        now = lab.clock.now()
        lab.world.change_status(changed, "cleared", at=now - timedelta(minutes=20))
        lab.world.change_status(flipped, "cleared", at=now - timedelta(minutes=20))
        seen_again(lab)
        lab.run()
        lab.run()
        lab.clock.step(hours=1)
        lab.world.change_status(flipped, "active", at=lab.clock.now() - timedelta(minutes=20))
        seen_again(lab)
        lab.run()
        lab.run()
        counts = delivered(lab)
        assert (counts.pop(changed), counts.pop(flipped)) == (2, 3)
        assert set(counts.values()) == {1}
        statuses = [line["status"] for line in summaries(lab) if line["_threatId"] == flipped]
        assert statuses == ["active", "cleared", "active"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503, times=None),
        Fault("status", status=302, times=None),
        Fault("status", status=407, times=None),
        Fault("body", body=b"<html>Your proxy says no.</html>", times=None),
        Fault("body", body=b"{}", times=None),
        Fault("body", body=b"[]", times=None),
        Fault("body", body=b'{"message":"no"}', times=None),
        Fault("body", body=b"[" * 100_000, times=None),
        Fault("body", body=b'{"id":"' + b"x" * 4_000_000 + b'"}', times=None),
    ],
    ids=["503", "302", "407", "html", "empty", "list", "message", "nested", "long"],
)
def test_what_is_not_taps_answer_leaves_the_summary_open(fault: Fault) -> None:
    with open_summaries(threats_at(START - timedelta(minutes=30), 4)) as lab:
        one = next(iter(lab.world.threats))
        lab.tap.faults.add(THREAT_SUMMARY, fault, threat_id=one)
        assert lab.run().stats.outcome == "incomplete"
        assert set(lab.state()["summaries"]) == {one}
        lab.tap.faults.clear()
        lab.run()
        assert delivered(lab) == Counter(list(lab.world.threats))


def test_a_404_counts_only_beside_a_true_answer() -> None:
    with open_summaries(threats_at(START - timedelta(minutes=30), 3)) as lab:
        lab.tap.faults.add(THREAT_SUMMARY, Fault("status", status=404, times=None))
        lab.run()
        assert len(lab.state()["summaries"]) == 3
        lab.tap.faults.clear()
        unknown = lab.world.add_threat(has_summary=False)
        lab.world.add_event("messagesBlocked", [unknown.id], created=lab.clock.now() - timedelta(minutes=5))
        stats = lab.run().stats
        assert (stats.summaries, stats.summaries_skipped, stats.summaries_left) == (3, 1, 0)
        assert unknown.id not in delivered(lab)


def test_an_open_summary_leaves_after_seven_days_by_name() -> None:
    with open_summaries(threats_at(START - timedelta(minutes=30), 2)) as lab:
        bad = next(iter(lab.world.threats))
        lab.tap.faults.add(THREAT_SUMMARY, Fault("status", status=503, times=None), threat_id=bad)
        messages = []
        for _ in range(10):
            messages += lab.run().messages(logging.ERROR)
            lab.clock.step(hours=23)
        assert [line for line in messages if bad in line and "Gave up the summary" in line]
        assert "summaries" not in lab.state()
        assert len(lab.tap.calls_to(THREAT_SUMMARY)) < 20


def test_429_ends_the_summaries_and_not_the_forensics() -> None:
    with open_summaries() as lab:
        lab.tap.faults.add(THREAT_SUMMARY, Fault("status", status=429, times=None))
        lab.run()
        assert once_each(lab)
        calls = len(lab.tap.calls_to(THREAT_SUMMARY))
        lab.run()
        assert len(lab.tap.calls_to(THREAT_SUMMARY)) == calls
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run()
        assert len(delivered(lab)) == 10


def test_summaries_that_hang_leave_time_for_the_forensics() -> None:
    with open_summaries(RUN_BUDGET_SECONDS="8") as lab:
        lab.tap.faults.add(THREAT_SUMMARY, Fault("hang", times=None))
        lab.run()
        assert once_each(lab)
        lab.tap.faults.clear()


def test_many_summaries_fill_several_objects_and_come_eight_at_a_time() -> None:
    with open_summaries(World.from_threats(60, now=START, report_bytes=500)) as lab:
        lab.batch_bytes, lab.tap.latency_seconds = 10_000, 0.02
        lab.run()
        assert len(lab.bucket.objects(f"{PREFIX}/")) > 2
        assert len(delivered(lab)) == 60
        assert max(call.in_flight for call in lab.tap.calls_to(THREAT_SUMMARY)) == 8


def test_an_unreadable_siem_leaves_open_summaries_to_the_next_run() -> None:
    with open_summaries() as lab:
        lab.tap.faults.add(SIEM, Fault("status", status=503, times=None))
        lab.run()
        assert delivered(lab) == Counter()
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run_until_done()
        assert len(delivered(lab)) == 10
