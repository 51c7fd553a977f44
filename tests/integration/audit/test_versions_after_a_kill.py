"""An event that one response shows in two versions comes once in each, also after a takeover."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tap_forensics.sandbox.world import World
from tests.support.events_lab import EVENTS, event_lines
from tests.support.lab import START, open_lab
from tests.support.world_faults import run_and_die

TEN_MINUTES = timedelta(minutes=10)


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("at", range(4, 14))
def test_both_versions_of_an_event_come_once_though_the_run_that_wrote_them_died(
    at: int, landed: bool
) -> None:
    world = World(1, start=START - timedelta(hours=8), end=START, messages_per_hour=0, clicks_per_hour=0)
    for status in ("active", "cleared"):
        world.add_event(
            "clicksBlocked", created=START - TEN_MINUTES, body={"id": "1", "threatStatus": status}
        )
    with open_lab(world, EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        run_and_die(lab, at, landed=landed)
        for _ in range(3):
            lab.clock.step(minutes=5)
            lab.run()
        assert sorted(event["threatStatus"] for event in event_lines(lab)) == ["active", "cleared"]
