"""Any world, any faults, any deaths, any clock: at the end nothing is lost and nothing came twice."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from requests import PreparedRequest, Response

import tap_forensics.delivery
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.faults.lab import FORENSICS, SIEM, START, Lab, Ran, lab
from tests.faults.lab_bucket import Through

SHORT_OF_SEVEN_DAYS_MINUTES = 4 * 24 * 60
BACK_AT_MOST_MINUTES = 15


class Dying(Through):
    """To the bucket, a process that is killed at its n-th call: right before it, or right after it landed."""

    def __init__(self, at: int, *, landed: bool) -> None:
        super().__init__()
        self.calls, self.at, self.landed = 0, at, landed
        self.counting = threading.Lock()

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        with self.counting:
            self.calls += 1
            call = self.calls
        if call == self.at and self.landed:
            super().send(request, *args, **kwargs)
        if call >= self.at:
            raise OSError("this process was killed")
        return super().send(request, *args, **kwargs)


def run_and_die(the: Lab, at: int, *, landed: bool) -> Ran:
    with the.through(Dying(at, landed=landed)):
        return the.run()


KINDS = st.sampled_from(["messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked"])
FAULTS = st.one_of(
    st.builds(
        Fault, st.just("status"), status=st.sampled_from([500, 503, 429, 404]), times=st.integers(1, 12)
    ),
    st.builds(
        Fault,
        st.just("status"),
        status=st.sampled_from([503, 429]),
        headers=st.sampled_from(["0", "5", "400", "Thu, 01 Jan 1970 00:00:00 GMT", "-1", "x"]).map(
            lambda text: {"Retry-After": text}
        ),
        times=st.integers(1, 6),
    ),
    st.builds(
        Fault, st.sampled_from(["reset", "cut"]), after_bytes=st.integers(1, 99), times=st.integers(1, 9)
    ),
    st.builds(
        Fault, st.just("body"), body=st.sampled_from([b"", b"{", b"[]", b"\xff"]), times=st.integers(1, 6)
    ),
)


class Worlds(RuleBasedStateMachine):
    """The rules move one lab; `teardown` lets it come to rest and compares with the world's own list."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.batch_bytes = tap_forensics.delivery._BATCH_BYTES
        # A few threats fill a batch.
        tap_forensics.delivery._BATCH_BYTES = 4_000
        world = World.from_threats(0, now=START, campaigns=2)
        world.reports.report_bytes, world.reports.campaign_report_bytes = 1_500, 2_500
        self.lab = self.stack.enter_context(lab(world, MAX_THREATS="7", DEDUP_HOURS="168"))
        self.minutes = self.stepped_back = 0
        self.lost: list[str] = []
        self._keep(self.lab.run())

    def _keep(self, ran: Ran) -> None:
        self.lost += [line for line in ran.said(logging.ERROR) if line.startswith(("Lost", "Gave up"))]

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

    @precondition(lambda self: self.minutes < SHORT_OF_SEVEN_DAYS_MINUTES)
    @rule(minutes=st.integers(1, 300))
    def time_passes(self, minutes: int) -> None:
        self.minutes += minutes
        self.lab.time.advance(minutes=minutes)

    @precondition(lambda self: self.stepped_back < BACK_AT_MOST_MINUTES)
    @rule(minutes=st.integers(1, 4))
    def the_clock_steps_back(self, minutes: int) -> None:
        """Not so far that steps, late indexing and two clocks together outreach the overlap of an hour."""
        self.stepped_back += minutes
        self.lab.time.advance(minutes=-minutes)

    @rule(seconds=st.integers(-200, 200))
    def the_api_has_a_clock_of_its_own(self, seconds: int) -> None:
        self.lab.tap.clock = lambda: self.lab.time.now() + timedelta(seconds=seconds)

    @rule(fault=FAULTS, path=st.sampled_from([SIEM, FORENSICS]))
    def the_api_is_going_to_fail(self, fault: Fault, path: str) -> None:
        if fault.status == 404 and path == FORENSICS:
            return  # a true answer there: there is no such threat
        self.lab.tap.faults.add(path, fault)

    @rule()
    def a_run(self) -> None:
        self._keep(self.lab.run())

    @rule(at=st.integers(1, 14), landed=st.booleans())
    def a_run_that_dies(self, at: int, landed: bool) -> None:
        self._keep(run_and_die(self.lab, at, landed=landed))

    @invariant()
    def nothing_came_twice(self) -> None:
        twice = {name: count for name, count in self.lab.delivered().items() if count > 1}
        assert not twice

    def teardown(self) -> None:
        try:
            self.lab.tap.faults.clear()
            self.lab.tap.clock = self.lab.time.now
            self.lab.time.advance(minutes=BACK_AT_MOST_MINUTES + 15)
            for ran in self.lab.run_until_done():
                self._keep(ran)
            assert dict(self.lab.delivered()) == dict.fromkeys(self.lab.truth(), 1)
            assert self.lost == []
            assert not {"gaps", "backlog", "lease"} & set(self.lab.state())
        finally:
            tap_forensics.delivery._BATCH_BYTES = self.batch_bytes
            self.stack.close()


TestWorlds = Worlds.TestCase
TestWorlds.settings = settings(
    max_examples=25,
    stateful_step_count=14,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
