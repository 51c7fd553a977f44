"""A day at five-minute polls, with kills and faults: each event once, each changed one once per version."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import Rates, Verdict, World, WorldEvent
from tests.support.events_lab import EVENTS, event_lines
from tests.support.lab import SIEM, Lab, open_lab
from tests.support.world_faults import run_and_die

pytestmark = pytest.mark.slow

POLLS = 288
MIDNIGHT = datetime.fromisoformat("2026-03-04T00:00:00+00:00")
MINUTE = timedelta(minutes=1)
CALLS_A_DAY = 1800


def a_day(seed: int) -> World:
    """Copies, stubs, shuffled parts and late events are in every world; here most events come late."""
    return World(
        seed,
        start=MIDNIGHT,
        end=MIDNIGHT + timedelta(hours=23),
        messages_per_hour=12,
        clicks_per_hour=6,
        campaigns=0,
        odds=Rates(false_positive=0, oddity=0.2, late_minutes=30),
    )


def judged(world: World, rng: random.Random) -> None:
    """Some change where they are while their window is still read again, some are created anew, hours later,
    some both. Where a body does not speak of a threat's status, nothing changes.
    """
    for event in [e for e in world.events if says_status(e) and rng.random() < 0.3]:
        now = event
        if rng.random() < 0.6 and event.indexed - event.created < 5 * MINUTE:
            verdict = Verdict(event.created + 35 * MINUTE, campaign=f"campaign-{rng.randrange(9)}")
            now = world.rejudge(event, verdict, recreated=False)
        if rng.random() < 0.6 or now is event:
            at = event.created + rng.randrange(120, 600) * MINUTE
            if at < world.end:
                world.rejudge(now, Verdict(at, status="falsePositive"), recreated=True)


def says_status(event: WorldEvent) -> bool:
    entries = event.body.get("threatsInfoMap", [event.body]) or []
    return any(isinstance(entry, dict) and "threatStatus" in entry for entry in entries)


def content(event: dict[str, Any]) -> str:
    """What an event says, in a form that another order of lists does not change, beside its version."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(v) for key, v in value.items() if key not in ("threatTime",)}
        if isinstance(value, list):
            return sorted((ordered(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
        return value

    return json.dumps(ordered(event), sort_keys=True)


def as_said(event: WorldEvent, upto: int) -> str:
    """The event after its first `upto` verdicts."""
    body = json.loads(json.dumps(event.body))
    entries = body.get("threatsInfoMap", [body])
    for verdict in event.verdicts[:upto]:
        for entry in entries or []:
            if isinstance(entry, dict) and (entry is not body or "threatStatus" in body):
                entry.update({"threatStatus": verdict.status} if verdict.status else {})
                if verdict.campaign:
                    entry["campaignId" if "campaignId" in entry else "campaignID"] = verdict.campaign
    return content({"_kind": event.kind, **body})


def truth(world: World) -> Counter[str]:
    """Each version of each event, once. An event created anew holds the verdicts of its former self."""
    return Counter({as_said(e, upto): 1 for e in world.events for upto in range(len(e.verdicts) + 1)})


def delivered(lab: Lab) -> Counter[str]:
    found: Counter[str] = Counter()
    for event in event_lines(lab):
        ours = {"_eventType", "_update"}
        found[
            content({"_kind": event["_eventType"], **{k: v for k, v in event.items() if k not in ours}})
        ] += 1
    return found


def trouble(lab: Lab, rng: random.Random) -> None:
    """One in ten polls: the API fails or is slow to speak."""
    kind = rng.choice(["status", "reset", "cut", "long"])
    if kind == "long":
        heavy = lab.clock.now() - timedelta(minutes=rng.randrange(10, 50))
        lab.tap.faults.add(SIEM, Fault("status", times=7), overlapping=(heavy, heavy + timedelta(seconds=1)))
    else:
        lab.tap.faults.add(SIEM, Fault("status" if kind == "status" else "cut", times=rng.randrange(1, 4)))


def test_a_day_of_polls_with_kills_and_faults_brings_each_version_of_each_event_once() -> None:
    rng = random.Random(5)
    world = a_day(11)
    judged(world, rng)
    with open_lab(world, now=MIDNIGHT, EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        # A few events fill an object, so that kills find runs of several.
        lab.batch_bytes = 6_000
        for _ in range(POLLS):
            if rng.random() < 0.1:
                trouble(lab, rng)
            if rng.random() < 0.15:
                run_and_die(lab, rng.randrange(1, 12), landed=rng.random() < 0.5)
            else:
                lab.run()
            lab.tap.faults.clear()
            lab.clock.step(minutes=5)
        lab.run()
        calls = len(lab.tap.calls_to(SIEM))
        found, wanted = delivered(lab), truth(world)
        assert {text: n for text, n in found.items() if n > 1} == {}
        assert wanted - found == Counter()
        assert found - wanted == Counter()
        assert calls < CALLS_A_DAY
        assert sum(event.get("_update", False) for event in event_lines(lab)) > 150
