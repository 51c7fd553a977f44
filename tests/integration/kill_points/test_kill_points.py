"""Killed right before and right after every call to the bucket and to TAP, and run again until done.

Where the time goes: TAP takes its time here, and a dead run's lease is waited for. The stories are told side
by side; almost all of each is waiting.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3

from tap_forensics.sandbox.cloudevents import FunctionServer, post_event
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.integration.kill_points.conftest import NewScene
from tests.support.kill_points.orders import Act, Call, nth
from tests.support.kill_points.runner import Ending
from tests.support.kill_points.scene import Scene, kind, writes_evidence

pytestmark = pytest.mark.slow

AT_ONCE = 16
WHAT_A_RUN_DOES = {
    "read state",
    "write state",
    "tap /v2/siem/all",
    "tap /v2/forensics",
    "write evidence",
    "read handover",
    "write handover",
}
# Of the state, which is missing; or of the dead run's next object.
WHAT_A_FIRST_RUN_DOES = {"list versions"}
WHAT_A_TAKEOVER_DOES = {"read age", "read evidence", "list versions"}

Before = Callable[[Scene], None]


@dataclass(frozen=True)
class Point:
    """The n-th call of a kind."""

    kind: str
    number: int


@dataclass
class Story:
    """A run killed at a point; `killed_at` None where it finished before it made that many such calls."""

    point: Point
    killed_at: Call | None
    faults: list[str]
    log: str

    def __str__(self) -> str:
        return f"killed at {self.killed_at}: {'; '.join(self.faults)}\n{self.log}"


def calls_by_kind(scene: Scene, before: Before) -> Counter[str]:
    """How often a run that nobody kills makes each kind of call."""
    before(scene)
    with scene.gate() as gate:
        assert scene.start(gate).end() is Ending.COMPLETE
        return Counter(kind(call) for call in gate.journal)


def killed_at(scene: Scene, before: Before, act: Act, point: Point) -> Story:
    """A run that dies at a point; then as many as it takes."""
    before(scene)
    with scene.gate() as gate:
        order = gate.order(act, nth(point.number, lambda call: kind(call) == point.kind))
        ending = scene.start(gate).end()
        assert ending is (Ending.KILLED if order.met else Ending.COMPLETE), scene.log
        gate.wait_until_quiet()
    since = utc_now()
    scene.run_until_done()
    return Story(point, order.call, scene.check(since), scene.log)


def told_to_the_end(tell: Callable[[Point], Story], guess: Counter[str]) -> list[Story]:
    """For each kind of call the stories 1, 2, … until a run finishes without meeting its kill.

    The guess says how many are told at once; the last ones decide whether there are more.
    """
    stories: list[Story] = []
    points = [Point(kind, number + 1) for kind, count in guess.items() for number in range(count + 1)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while points:
            stories += pool.map(tell, points)
            last = {
                story.point.kind: story for story in sorted(stories, key=lambda story: story.point.number)
            }
            points = [Point(kind, one.point.number + 1) for kind, one in last.items() if one.killed_at]
    return stories


def nothing(_: Scene) -> None:
    """The bucket is empty."""


def a_run_died(scene: Scene) -> None:
    """Its second object landed, and it never heard of that."""
    with scene.gate() as gate:
        gate.order(Act.KILL_AFTER, nth(2, writes_evidence))
        assert scene.start(gate).end() is Ending.KILLED
        gate.wait_until_quiet()
    scene.wait_for_the_lease_to_run_out()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("before", "does"),
    [
        pytest.param(nothing, WHAT_A_RUN_DOES | WHAT_A_FIRST_RUN_DOES, id="a first run"),
        pytest.param(a_run_died, WHAT_A_RUN_DOES | WHAT_A_TAKEOVER_DOES, id="a run that takes over"),
    ],
)
@pytest.mark.parametrize("act", [Act.KILL_BEFORE, Act.KILL_AFTER], ids=["before", "after"])
def test_wherever_a_run_is_killed_nothing_is_lost_and_nothing_comes_twice(
    act: Act, before: Before, does: set[str], new_scene: NewScene
) -> None:
    guess = calls_by_kind(new_scene(), before)
    assert guess.keys() == does
    assert guess["write evidence"] >= 3
    stories = told_to_the_end(lambda point: killed_at(new_scene(), before, act, point), guess)
    assert {story.point.kind for story in stories if story.killed_at} == does
    assert not [str(story) for story in stories if story.faults]


@pytest.mark.parametrize("shape", ["report", "response"])
def test_what_a_dead_run_wrote_is_found_in_either_shape_of_line(shape: str, new_scene: NewScene) -> None:
    scene = new_scene(RECORD_SHAPE=shape)
    a_run_died(scene)
    assert len(scene.evidence()) == 2
    since = utc_now()
    scene.run_until_done()
    # The first one is committed already if the second took a while.
    assert re.search("[12] finished objects found", scene.log)
    assert not scene.check(since)


@pytest.fixture
def large_scene(storage: FakeBucket, tmp_path: Path) -> Iterator[Scene]:
    """Reports so large that the function as it is deployed writes three batches."""
    world = World.from_threats(
        7,
        now=utc_now(),
        campaigns=1,
        threats_per_campaign=4,
        report_bytes=1_500_000,
        campaign_report_bytes=50_000,
    )
    with TapServer(world) as tap:
        env = {"LEASE_SECONDS": "1", "FETCH_CONCURRENCY": "2"}
        yield Scene(f"large-{tmp_path.name}".replace("_", "-"), storage, tap, tmp_path, env)


@pytest.mark.parametrize(
    ("act", "point"),
    [
        pytest.param(Act.KILL_AFTER, Point("write evidence", 2), id="a batch landed"),
        pytest.param(Act.KILL_BEFORE, Point("write state", 2), id="a commit did not"),
    ],
)
def test_the_deployed_function_killed_by_its_group_goes_on_in_a_new_one(
    act: Act, point: Point, large_scene: Scene
) -> None:
    with large_scene.gate() as gate, ThreadPoolExecutor(1) as trigger:
        order = gate.order(act, nth(point.number, lambda call: kind(call) == point.kind))
        with FunctionServer(large_scene.environment(gate)) as function:
            gate.guard(function.kill)
            answer = trigger.submit(post_event, function.url)
            with pytest.raises(urllib3.exceptions.ProtocolError):
                answer.result()
        order.wait_until_met()
        gate.wait_until_quiet()
    large_scene.wait_for_the_lease_to_run_out()
    since = utc_now()
    with FunctionServer(large_scene.environment()) as function:
        assert post_event(function.url)[0] == 200
        assert function.wait_for_log("Taking over run")
    assert len(large_scene.evidence()) >= 3
    assert not large_scene.check(since)
