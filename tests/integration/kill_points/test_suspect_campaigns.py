"""A campaign's report or a threat's summary that kills the process costs only itself."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.routes import THREAT_SUMMARY
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.kill_points.conftest import NewScene
from tests.integration.kill_points.test_suspects import FORENSICS, Poison, a_day_passes, delivered, expected
from tests.support.kill_points.runner import Ending
from tests.support.kill_points.scene import SUMMARIES_PREFIX, Scene

pytestmark = pytest.mark.slow

ON = {"CAMPAIGN_FIRST": "on", "SUMMARIES_PREFIX": SUMMARIES_PREFIX}


def campaigns(scene: Scene) -> list[str]:
    lines = [json.loads(line) for data in scene.evidence().values() for line in data.splitlines()]
    return [line["id"] for line in lines if line["scope"] == "CAMPAIGN"]


def summarized(scene: Scene) -> set[str]:
    return {
        json.loads(line)["_threatId"] for data in scene.summaries().values() for line in data.splitlines()
    }


def test_a_campaign_that_kills_two_runs_is_named_and_its_members_get_their_own_reports(
    new_scene: NewScene,
) -> None:
    scene = new_scene(**ON)
    bad, good = scene.world.campaigns
    # Also within the answer to a member's call.
    members = {threat.id for threat in scene.world.members[bad]}
    poison = Poison(
        scene,
        lambda request: (
            request.query.get("campaignId") == bad
            or ("includeCampaignForensics" in request.query and request.query.get("threatId") in members)
        ),
    )
    assert poison.run() is Ending.KILLED
    scene.tap.forget_calls()
    assert poison.run() is Ending.KILLED
    (again,) = [call for call in scene.tap.calls_to(FORENSICS) if call.query.get("campaignId") == bad]
    assert again.in_flight == 1
    assert poison.run() is not Ending.KILLED
    assert poison.asked == 2, "it is asked for though it is in quarantine"
    assert f"{bad} was in flight when two runs died" in scene.log
    assert delivered(scene) == expected(scene)
    assert campaigns(scene) == [good]
    poison.run_out()
    a_day_passes(scene)
    threat = scene.world.add_threat(campaign=bad)
    scene.world.add_event("clicksPermitted", [threat.id], created=utc_now() - timedelta(minutes=5))
    scene.start().end()
    assert sorted(campaigns(scene)) == sorted([bad, good])


def test_a_summary_that_kills_two_runs_is_named_and_costs_the_others_and_the_forensics_nothing(
    new_scene: NewScene,
) -> None:
    scene = new_scene(**ON)
    bad = next(iter(scene.world.threats))
    poison = Poison(scene, lambda request: request.path == f"{THREAT_SUMMARY}{bad}")
    assert [poison.run(), poison.run(), poison.run()] == [Ending.KILLED, Ending.KILLED, Ending.INCOMPLETE]
    assert poison.asked == 2
    assert f"{bad} was in flight when two runs died" in scene.log
    assert summarized(scene) == scene.world.threats.keys() - {bad}
    assert scene.state()["summaries"][bad]["kills"] == 2
    assert delivered(scene) == expected(scene)
    poison.run_out()
    a_day_passes(scene)
    since = utc_now()
    scene.run_until_done()
    assert not scene.check(since)


def test_what_was_announced_and_never_requested_is_no_suspect(new_scene: NewScene) -> None:
    """TAP's 429 ends the summaries; a threat's report kills the run after that."""
    scene = new_scene(**ON)
    dies = next(iter(expected(scene)))
    poison = Poison(scene, lambda request: request.query.get("threatId") == dies)
    wait = {"Retry-After": "290"}
    scene.tap.faults.add(THREAT_SUMMARY, Fault("status", times=None, status=429, headers=wait))
    assert poison.run() is Ending.KILLED
    assert dies in scene.state()["lease"]["asking"]
    assert "asking_summaries" not in scene.state()["lease"]
    poison.run_out()
    since = utc_now()
    scene.run_until_done()
    assert not scene.check(since)
