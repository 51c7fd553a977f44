"""What kills the process costs only itself: asked for alone by the next run, then left alone for a day."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.http_messages import Request
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.kill_points.conftest import NewScene
from tests.support.kill_points.runner import Ending
from tests.support.kill_points.scene import Scene
from tests.support.settings import STATE

pytestmark = pytest.mark.slow

FORENSICS, SIEM = "/v2/forensics", "/v2/siem/all"


class Poison:
    """Kills the run that asks for what `applies` says, as an answer does that is too much for the process."""

    def __init__(self, scene: Scene, applies: Callable[[Request], bool]) -> None:
        self.scene, self.applies, self.asked = scene, applies, 0
        self.kill: Callable[[], None] = lambda: None
        scene.tap.faults.add(self.meets, Fault("reset", times=None))

    def meets(self, request: Request) -> bool:
        if not self.applies(request):
            return False
        self.asked += 1
        self.kill()
        return True

    def run(self) -> Ending:
        self.scene.wait_for_the_lease_to_run_out()
        run = self.scene.start()
        self.kill = run.kill
        return run.end()

    def run_out(self) -> None:
        self.scene.tap.faults.clear()


def a_day_passes(scene: Scene) -> None:
    """As far as what is quarantined is concerned."""
    state = scene.state()
    named = [state.get(name, {}) for name in ("backlog", "summaries", "failed_campaigns")]
    for item in [*state.get("gaps", []), *(item for each in named for item in each.values())]:
        if "tried" in item:
            item["tried"] = (datetime.fromisoformat(item["tried"]) - timedelta(days=1)).isoformat()
    scene.put(STATE, json.dumps(state))


def delivered(scene: Scene) -> set[str]:
    lines = [json.loads(line) for data in scene.evidence().values() for line in data.splitlines()]
    return {line["_threatId"] for line in lines if line["scope"] == "THREAT"}


def expected(scene: Scene) -> set[str]:
    return {name for name, threat in scene.world.threats.items() if threat.answer == "report"}


def test_a_threat_that_kills_two_runs_is_named_left_alone_for_a_day_and_costs_the_others_nothing(
    new_scene: NewScene,
) -> None:
    scene = new_scene()
    bad = next(name for name, threat in scene.world.threats.items() if threat.answer == "report")
    poison = Poison(scene, lambda request: request.query.get("threatId") == bad)
    assert [poison.run(), poison.run()] == [Ending.KILLED] * 2
    assert poison.asked == 2
    assert poison.run() is Ending.INCOMPLETE
    assert poison.asked == 2, "it is asked for though it is in quarantine"
    assert f"{bad} was in flight when two runs died" in scene.log
    assert delivered(scene) == expected(scene) - {bad}
    assert scene.state()["backlog"][bad]["kills"] == 2
    poison.run_out()
    a_day_passes(scene)
    since = utc_now()
    scene.run_until_done()
    assert not scene.check(since)


def test_suspects_are_asked_for_one_at_a_time_and_each_is_written_before_the_next(
    new_scene: NewScene,
) -> None:
    scene = new_scene(FETCH_CONCURRENCY="4")
    names = sorted(expected(scene))
    killers = iter(names[:1])
    dies = next(killers)
    poison = Poison(scene, lambda request: request.query.get("threatId") == dies)
    assert poison.run() is Ending.KILLED
    poison.run_out()
    scene.tap.forget_calls()
    scene.wait_for_the_lease_to_run_out()
    suspects = set(scene.state()["lease"]["asking"]) & scene.state()["backlog"].keys()
    assert dies in suspects
    assert len(suspects) > 1
    since = utc_now()
    scene.run_until_done()
    # One that got a 404 is no suspect any more, and asked again beside others.
    first = {call.query["threatId"]: call for call in reversed(scene.tap.calls_to(FORENSICS))}
    assert {first[threat_id].in_flight for threat_id in suspects} == {1}
    assert not scene.check(since)


def test_a_window_that_kills_two_runs_costs_the_other_windows_nothing(new_scene: NewScene) -> None:
    scene = new_scene()
    moment = utc_now() - timedelta(minutes=100)

    def holds_the_moment(request: Request) -> bool:
        if request.path != SIEM:
            return False
        start, end = map(datetime.fromisoformat, request.query["interval"].split("/"))
        return start <= moment < end

    poison = Poison(scene, holds_the_moment)
    assert [poison.run(), poison.run()] == [Ending.KILLED] * 2
    assert poison.run() is Ending.INCOMPLETE
    assert poison.asked == 2
    (gap,) = scene.state()["gaps"]
    assert gap["kills"] == 2
    assert datetime.fromisoformat(gap["start"]) <= moment < datetime.fromisoformat(gap["end"])
    assert "was in flight when two runs died" in scene.log
    assert delivered(scene)
    poison.run_out()
    a_day_passes(scene)
    since = utc_now()
    scene.run_until_done()
    assert not scene.check(since)
