"""A verdict that flips back is news: what a feed was told last must be what TAP says last."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tap_forensics.sandbox.world import Verdict, World
from tests.support.events_lab import EVENTS, event_lines
from tests.support.lab import START, Lab, open_lab

MINUTE = timedelta(minutes=1)


def quiet_world() -> World:
    return World(1, start=START - timedelta(hours=8), end=START, messages_per_hour=0, clicks_per_hour=0)


def flips(lab: Lab, *verdicts: tuple[int, str], recreated: bool) -> None:
    event = lab.world.add_event("clicksPermitted", ["a" * 64], created=START - 10 * MINUTE)
    for minute, status in verdicts:
        event = lab.world.rejudge(event, Verdict(START + minute * MINUTE, status), recreated=recreated)


def told(lab: Lab) -> list[tuple[str, bool | None]]:
    return [(event["threatStatus"], event.get("_update")) for event in event_lines(lab)]


@pytest.mark.parametrize("recreated", [False, True])
def test_active_cleared_active_is_three_lines_and_the_last_says_active(recreated: bool) -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        flips(lab, (7, "cleared"), (17, "active"), recreated=recreated)
        for _ in range(8):
            lab.run()
            lab.clock.step(minutes=5)
        assert told(lab) == [("active", None), ("cleared", True), ("active", True)]


@pytest.mark.parametrize("recreated", [False, True])
def test_a_verdict_may_flip_as_often_as_it_likes(recreated: bool) -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        flips(lab, (7, "cleared"), (17, "active"), (27, "cleared"), (37, "active"), recreated=recreated)
        for _ in range(12):
            lab.run()
            lab.clock.step(minutes=5)
        assert [status for status, _ in told(lab)] == ["active", "cleared", "active", "cleared", "active"]


def test_a_flip_back_between_two_runs_is_no_news() -> None:
    with open_lab(quiet_world(), EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        flips(lab, (7, "cleared"), (8, "active"), recreated=False)
        for _ in range(4):
            lab.run()
            lab.clock.step(minutes=5)
        assert told(lab) == [("active", None)]
