"""Threat summaries cost the forensics nothing, whatever they answer, and are never another threat's."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.routes import THREAT_SUMMARY
from tap_forensics.sandbox.world import Verdict, World
from tests.support.lab import START, Lab, open_lab
from tests.support.scenes import lasting, once_each, threats_at

PREFIX = "tap-summaries"
HALF_AN_HOUR_AGO = START - timedelta(minutes=30)


def delivered(lab: Lab) -> Counter[str]:
    objects = lab.bucket.objects(f"{PREFIX}/").values()
    return Counter(json.loads(line)["_threatId"] for data in objects for line in data.splitlines())


@pytest.mark.parametrize("status", [401, 403])
def test_a_principal_without_a_right_to_summaries_still_gets_its_forensics(status: int) -> None:
    with open_lab(SUMMARIES_PREFIX=PREFIX) as lab:
        lab.tap.faults.add(THREAT_SUMMARY, lasting("status", status=status))
        result = lab.run()
        assert f"TAP answered {status}" in str(result.failure)
        assert once_each(lab)
        lab.tap.faults.clear()
        lab.run()
        assert delivered(lab) == Counter(list(lab.world.threats))


def test_many_summaries_leave_time_for_the_forensics() -> None:
    """They come one after the other, without a moment of silence."""
    world = World.from_threats(400, now=START, report_bytes=300)
    with open_lab(world, SUMMARIES_PREFIX=PREFIX, RUN_BUDGET_SECONDS="8", MAX_THREATS="1") as lab:
        lab.tap.faults.add(THREAT_SUMMARY, Fault("delay", times=None, delay_seconds=0.15))
        result = lab.run()
        assert result.stats.threats_fetched == 1
        assert 0 < result.stats.summaries < 400
        lab.tap.faults.clear()
        lab.run()
        assert set(delivered(lab).values()) == {1}
        assert len(delivered(lab)) == 400


def test_a_429_to_summaries_is_not_waited_for_longer_than_their_share_of_the_run() -> None:
    with open_lab(SUMMARIES_PREFIX=PREFIX) as lab:
        wait = {"Retry-After": "290"}
        lab.tap.faults.add(THREAT_SUMMARY, lasting("status", status=429, headers=wait))
        before = lab.clock.now()
        lab.run()
        assert lab.clock.now() - before < timedelta(seconds=150)
        assert once_each(lab)
        lab.tap.faults.clear()


def test_summaries_that_hang_count_as_failed_and_come_after_the_others() -> None:
    world = World.from_threats(12, now=START, report_bytes=300)
    with open_lab(world, SUMMARIES_PREFIX=PREFIX, RUN_BUDGET_SECONDS="6", FETCH_CONCURRENCY="2") as lab:
        hanging = list(world.threats)[:2]
        for name in hanging:
            lab.tap.faults.add(THREAT_SUMMARY, lasting("hang"), threat_id=name)
        for _ in range(2):
            lab.run()
        assert set(delivered(lab)) == set(world.threats) - set(hanging)
        lab.tap.faults.clear()


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"4f1c","name":"unavailable","message":"try again later"}',
        b'{"id":17,"name":"x"}',
        b'{"id":null,"error":"x"}',
    ],
)
def test_what_names_another_id_is_not_the_summary_of_this_threat(body: bytes) -> None:
    with open_lab(threats_at(HALF_AN_HOUR_AGO, 3), SUMMARIES_PREFIX=PREFIX) as lab:
        one = next(iter(lab.world.threats))
        lab.tap.faults.add(THREAT_SUMMARY, lasting("body", body=body), threat_id=one)
        assert lab.run().stats.outcome == "incomplete"
        assert set(lab.state()["summaries"]) == {one}
        assert one not in delivered(lab)
        lab.tap.faults.clear()


@pytest.mark.parametrize("recreated", [False, True])
def test_a_verdict_that_changes_brings_the_summary_once_more(recreated: bool) -> None:
    """The event's own time stays the same; `threatTime` is when TAP gave the status."""
    with open_lab(threats_at(HALF_AN_HOUR_AGO, 3), SUMMARIES_PREFIX=PREFIX) as lab:
        lab.run()
        lab.clock.step(minutes=20)
        event = lab.world.events[0]
        lab.world.rejudge(event, Verdict(lab.clock.now(), "cleared"), recreated=recreated)
        for _ in range(3):
            lab.clock.step(minutes=10)
            lab.run()
        (changed,) = event.threat_ids
        expected = Counter(list(lab.world.threats))
        expected[changed] = 2
        assert delivered(lab) == expected


@pytest.mark.parametrize("depth", [90, 500, 960, 980, 1200])
def test_a_nested_summary_comes_once_or_stays_open(depth: int) -> None:
    """How deep can be read depends on who reads."""
    with open_lab(threats_at(HALF_AN_HOUR_AGO, 1), SUMMARIES_PREFIX=PREFIX, FORENSICS="off") as lab:
        (name,) = lab.world.threats
        nested = b"[" * depth + b"]" * depth
        lab.world.summary_overrides[name] = b'{"id":"%s","name":%s}' % (name.encode(), nested)
        lab.run()
        lab.clock.step(hours=1)
        lab.run()
        is_open = name in lab.state().get("summaries", {})
        lines = b"".join(lab.bucket.objects(f"{PREFIX}/").values()).splitlines()
        assert len(lines) == (0 if is_open else 1)
