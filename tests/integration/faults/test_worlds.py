"""Any world, any faults, any deaths, any clock: at the end nothing is lost and nothing came twice."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import Verdict, World
from tests.support.lab import FORENSICS, SIEM, START, RunResult, open_lab
from tests.support.world_faults import BOMB, FAULTS, PAGE, run_and_die

pytestmark = pytest.mark.slow

# Together with the hours that coming to rest may take, less than the 7 days that TAP keeps.
TOGETHER_AT_MOST_MINUTES = 3 * 24 * 60
TO_REST_AT_MOST_RUNS = 72
BACK_AT_MOST_MINUTES = 15
OFF_AT_MOST_SECONDS = 30 * 60
# More than steps back, late indexing, and three clocks together can reach back.
OVERLAP_MINUTES = "120"
REREAD_MINUTES = 25
KINDS = st.sampled_from(["messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked"])


class Worlds(RuleBasedStateMachine):
    """The rules move one lab; `teardown` lets it come to rest and compares with the world's own list."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        world = World.from_threats(0, now=START, campaigns=2)
        world.reports.report_bytes, world.reports.campaign_report_bytes = 1_500, 2_500
        self.lab = self.stack.enter_context(open_lab(world))
        # A few threats fill a batch.
        self.lab.batch_bytes = 4_000
        self.lab.env |= {
            "MAX_THREATS": "7",
            "DEDUP_HOURS": "168",
            "OVERLAP_MINUTES": OVERLAP_MINUTES,
            "EVENTS_PREFIX": "tap-siem",
        }
        # Else what a feed deletes before a dead run's object was counted is nowhere.
        self.lab.bucket.keep_versions()
        self.minutes = self.stepped_back = 0
        self.lost: list[str] = []
        self.judged: dict[str, str] = {}
        self._keep(self.lab.run())

    def _keep(self, result: RunResult) -> None:
        self.lost += [line for line in result.messages(logging.ERROR) if line.startswith(("Lost", "Gave up"))]

    @rule(kind=KINDS, age=st.integers(0, 25), fresh=st.integers(0, 6), campaign=st.sampled_from([None, 0, 1]))
    def something_happens(self, kind: str, age: int, fresh: int, campaign: int | None) -> None:
        """New threats, indexed only now; or, with none, one more event of a known threat."""
        world, now = self.lab.world, self.lab.tap.clock()
        names = [
            world.add_threat(campaign=None if campaign is None else world.campaigns[campaign]).id
            for _ in range(fresh)
        ]
        for name in names or list(world.threats)[-1:]:
            world.add_event(kind, [name], created=now - timedelta(minutes=age), indexed=now)

    @rule(status=st.sampled_from(["active", "cleared"]), recreated=st.booleans(), which=st.integers(0, 9))
    def a_verdict_flips(self, status: str, recreated: bool, which: int) -> None:
        """Where it stands, of an event young enough to be read again; or as an event that is made anew."""
        now = self.lab.tap.clock()
        young = now - timedelta(minutes=REREAD_MINUTES)
        shown = [e for e in self.lab.world.events if e.until is None and (recreated or e.created > young)]
        if shown:
            event = shown[-1 - which % len(shown)]
            self.lab.world.rejudge(event, Verdict(now, status), recreated=recreated)
            self.judged[event.body["GUID"]] = status

    @precondition(lambda self: self.minutes < TOGETHER_AT_MOST_MINUTES)
    @rule(minutes=st.integers(1, 300))
    def time_passes(self, minutes: int) -> None:
        self.minutes += minutes
        self.lab.clock.step(minutes=minutes)

    @precondition(lambda self: self.stepped_back < BACK_AT_MOST_MINUTES)
    @rule(minutes=st.integers(1, 4))
    def the_clock_steps_back(self, minutes: int) -> None:
        self.stepped_back += minutes
        self.lab.clock.step(minutes=-minutes)

    @rule(seconds=st.integers(-OFF_AT_MOST_SECONDS, OFF_AT_MOST_SECONDS))
    def the_next_runs_clock_is_off(self, seconds: int) -> None:
        """Another instance, or a laptop."""
        self.lab.skew(seconds)

    @rule(seconds=st.integers(-200, 200))
    def the_api_has_a_clock_of_its_own(self, seconds: int) -> None:
        self.lab.tap.clock = lambda: self.lab.clock.now() + timedelta(seconds=seconds)

    @rule(fault=FAULTS, path=st.sampled_from([SIEM, FORENSICS]))
    def the_api_is_going_to_fail(self, fault: Fault, path: str) -> None:
        if fault.status == 404 and path == FORENSICS and fault.body != PAGE:
            return  # a true answer there: there is no such threat
        self.lab.tap.faults.add(path, fault)

    @precondition(lambda self: self.lab.world.threats)
    @rule(times=st.integers(1, 4))
    def an_answer_is_poisonous(self, times: int) -> None:
        """Far too much, for one threat."""
        name = list(self.lab.world.threats)[-1]
        self.lab.tap.faults.add(FORENSICS, replace(BOMB, times=times), threat_id=name)

    @rule()
    def the_feed_transfers_and_deletes(self) -> None:
        self.lab.feed_transfers()

    @rule()
    def a_run(self) -> None:
        self._keep(self.lab.run())

    @rule(at=st.integers(1, 20), landed=st.booleans())
    def a_run_that_dies(self, at: int, landed: bool) -> None:
        self._keep(run_and_die(self.lab, at, landed=landed))

    @invariant()
    def nothing_came_twice(self) -> None:
        twice = {name: count for name, count in self.lab.delivered().items() if count > 1}
        assert not twice

    def teardown(self) -> None:
        try:
            self._comes_to_rest()
            assert dict(self.lab.delivered()) == dict.fromkeys(self.lab.truth(), 1)
            assert self.lost == []
            assert not {"gaps", "backlog", "lease"} & set(self.lab.state())
            self._events_are_right()
        finally:
            self.stack.close()

    def _comes_to_rest(self) -> None:
        self.lab.tap.faults.clear()
        self.lab.tap.clock = self.lab.clock.now
        self.lab.skew(0)
        self.lab.clock.step(minutes=BACK_AT_MOST_MINUTES + 45)
        for result in self.lab.run_until_done(TO_REST_AT_MOST_RUNS):
            self._keep(result)

    def _events_are_right(self) -> None:
        """Every event was told, once if nothing changed, and last as TAP shows it now."""
        lines_by_guid: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in self.lab.lines():
            for events in line.values():
                if isinstance(events, list) and events and "_eventType" in events[0]:
                    lines_by_guid[events[0]["GUID"]].append(events[0])
        events = {event.body["GUID"]: event for event in self.lab.world.events}
        assert lines_by_guid.keys() == events.keys()
        still = Counter(
            {name: len(lines) for name, lines in lines_by_guid.items() if name not in self.judged}
        )
        assert still == Counter(events.keys() - self.judged.keys())
        assert {name: status_of(lines_by_guid[name][-1]) for name in self.judged} == self.judged


def status_of(event: dict[str, Any]) -> str:
    entries = event.get("threatsInfoMap") or [event]
    return str(entries[0]["threatStatus"])


TestWorlds = Worlds.TestCase
TestWorlds.settings = settings(
    max_examples=25,
    stateful_step_count=14,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
