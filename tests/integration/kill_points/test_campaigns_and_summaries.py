"""Kills, lost answers and zombies around calls by campaignId and for summaries: the other kill points again.

Each campaign's report comes once in all runs together here, and each threat's summary once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.kill_points.conftest import NewScene
from tests.integration.kill_points.test_kill_points import (
    WHAT_A_FIRST_RUN_DOES,
    Before,
    calls_by_kind,
    killed_at,
    nothing,
    told_to_the_end,
)
from tests.integration.kill_points.test_lost_answers import AT_ONCE, Story, of_kind
from tests.integration.kill_points.test_zombie import asleep
from tests.support.kill_points.orders import Act, Applies, nth
from tests.support.kill_points.runner import Ending
from tests.support.kill_points.scene import (
    ONE_BATCH_BYTES,
    SMALL_BATCH_BYTES,
    SUMMARIES_PREFIX,
    Scene,
    kind,
    writes_evidence,
    writes_summaries,
)

pytestmark = pytest.mark.slow

ON = {"CAMPAIGN_FIRST": "on", "SUMMARIES_PREFIX": SUMMARIES_PREFIX}
WHAT_A_RUN_DOES = {
    "read state",
    "write state",
    "tap /v2/siem/all",
    "tap summary",
    "tap by campaignId",
    "tap by threatId",
    "write summaries",
    "write evidence",
    "read handover",
    "write handover",
}
WHAT_A_TAKEOVER_DOES = {"read age", "read evidence", "read summaries", "list versions"}


def dies_after(number: int, writes: Applies) -> Before:
    """An object landed, and the run never heard of that."""

    def before(scene: Scene) -> None:
        with scene.gate() as gate:
            gate.order(Act.KILL_AFTER, nth(number, writes))
            assert scene.start(gate).end() is Ending.KILLED
            gate.wait_until_quiet()
        scene.wait_for_the_lease_to_run_out()

    return before


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("before", "does"),
    [
        pytest.param(nothing, WHAT_A_RUN_DOES | WHAT_A_FIRST_RUN_DOES, id="a first run"),
        pytest.param(
            dies_after(2, writes_summaries),
            WHAT_A_RUN_DOES | WHAT_A_TAKEOVER_DOES,
            id="a run that takes over",
        ),
    ],
)
@pytest.mark.parametrize("act", [Act.KILL_BEFORE, Act.KILL_AFTER], ids=["before", "after"])
def test_wherever_a_run_is_killed_each_report_and_each_summary_comes_once(
    act: Act, before: Before, does: set[str], new_scene: NewScene
) -> None:
    guess = calls_by_kind(new_scene(**ON), before)
    assert guess.keys() == does | ({"read evidence"} & does)
    assert guess["write summaries"] >= 1
    stories = told_to_the_end(lambda point: killed_at(new_scene(**ON), before, act, point), guess)
    assert {story.point.kind for story in stories if story.killed_at} == does
    assert not [str(story) for story in stories if story.faults]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("every_attempt", [False, True], ids=["once", "always"])
def test_a_lost_answer_to_a_write_of_summaries_or_campaigns_doubles_nothing(
    every_attempt: bool, new_scene: NewScene
) -> None:
    losses: list[Applies] = [nth(number, writes) for writes in WRITES for number in (1, 2)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [
            pool.submit(Story, new_scene(**ON, RUN_BUDGET_SECONDS="12"), loss, every_attempt=every_attempt)
            for loss in losses
        ]
        stories = [future.result() for future in futures]
    assert {kind(story.lost) for story in stories if story.lost} == {
        "write summaries",
        "write evidence",
        "write state",
    }
    assert not [str(story) for story in stories if story.faults]


WRITES = (writes_summaries, writes_evidence, of_kind("write state"))


@pytest.mark.parametrize("writes", [writes_summaries, writes_evidence], ids=["summaries", "campaigns"])
@pytest.mark.parametrize(
    ("of_the_zombie", "of_its_successor"),
    [(SMALL_BATCH_BYTES, ONE_BATCH_BYTES), (ONE_BATCH_BYTES, SMALL_BATCH_BYTES)],
    ids=["smaller", "larger"],
)
def test_a_zombie_s_object_under_the_next_name_counts_as_done(
    of_the_zombie: int, of_its_successor: int, writes: Applies, new_scene: NewScene
) -> None:
    scene = new_scene(**ON)
    with asleep(scene, writes, of_the_zombie) as zombie, scene.gate() as gate:
        upload = gate.order(Act.HOLD, writes)
        since = utc_now()
        successor = scene.start(gate, batch_bytes=of_its_successor)
        wanted = upload.wait_until_met()
        landed = zombie.call_lands()
        assert (landed.status, landed.object_name) == (200, wanted.object_name)
        upload.release()
        assert successor.end() is Ending.COMPLETE
        left = scene.objects()
        assert zombie.wakes() is Ending.FAILED
    assert wanted.status == 412
    assert scene.objects() == left
    assert not scene.check(since), scene.log
