"""Worlds and words that the rows of the audit share."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.support.lab import FORENSICS, START, Lab

JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html"}
PAGE = b"<!DOCTYPE html><html><body><h1>Bad request</h1>Your proxy says no.</body></html>"
GONE = b'{"message":"HTTP 404 Not Found"}'


def threats_every(
    minutes: float, *, since: datetime, until: datetime, kind: str = "messagesDelivered"
) -> World:
    """One threat with a report every so many minutes, each shown as soon as it happens."""
    world = World.from_threats(0, now=START)
    world.reports.report_bytes = 500
    moment = since
    while moment < until:
        world.add_event(kind, [world.add_threat().id], created=moment)
        moment += timedelta(minutes=minutes)
    return world


def threats_at(moment: datetime, count: int, *, kind: str = "messagesDelivered") -> World:
    world = World.from_threats(0, now=START)
    world.reports.report_bytes = 500
    for _ in range(count):
        world.add_event(kind, [world.add_threat().id], created=moment)
    return world


def once_each(lab: Lab) -> bool:
    return dict(lab.delivered()) == dict.fromkeys(lab.truth(), 1)


def assert_one_threat_waits_for_an_answer(lab: Lab, fault: Fault) -> None:
    """One threat gets this fault and the others true answers: only that one stays open, and none is lost."""
    one = next(iter(lab.world.threats))
    lab.tap.faults.add(FORENSICS, fault, threat_id=one)
    assert lab.run().stats.outcome == "incomplete"
    assert set(lab.state()["backlog"]) == {one}
    lab.tap.faults.clear()
    lab.clock.step(hours=1)
    lab.run_until_done()
    assert once_each(lab)


def lasting(kind: str, **fields: object) -> Fault:
    return Fault(kind, times=None, **fields)  # type: ignore[arg-type]  # a Fault checks its kind itself


def wait_until(holds: Callable[[], bool], within_seconds: float = 20) -> None:
    end = time.monotonic() + within_seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
