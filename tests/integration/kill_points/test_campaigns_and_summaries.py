"""Kills, lost answers and zombies around calls by campaignId and for summaries: the other kill points again.

Each campaign's report comes once in all runs together here, and each threat's summary once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.integration.kill_points.conftest import NewScene
from tests.integration.kill_points.test_kill_points import (
    Before,
    calls_by_kind,
    killed_at,
    nothing,
    told_to_the_end,
)
from tests.integration.kill_points.test_lost_answers import AT_ONCE, Story, of_kind
from tests.integration.kill_points.test_zombie import assert_a_zombie_s_object_counts
from tests.support.kill_points.orders import Act, Applies, nth
from tests.support.kill_points.runner import Ending
from tests.support.kill_points.scene import (
    CAMPAIGN_REPORT_BYTES,
    ONE_BATCH_BYTES,
    REPORT_BYTES,
    SMALL_BATCH_BYTES,
    SUMMARIES_PREFIX,
    Scene,
    kind,
    writes_evidence,
    writes_summaries,
)

pytestmark = pytest.mark.slow

ON = {"CAMPAIGN_FIRST": "on", "SUMMARIES_PREFIX": SUMMARIES_PREFIX}
NEW = {"tap summary", "tap by campaignId", "tap by threatId", "read summaries"}
WRITTEN = {"write summaries", "write evidence", "write state"}


def dies_after(number: int, writes: Applies) -> Before:
    """An object landed, and the run never heard of that."""

    def before(scene: Scene) -> None:
        with scene.gate() as gate:
            gate.order(Act.KILL_AFTER, nth(number, writes))
            assert scene.start(gate).end() is Ending.KILLED
            gate.wait_until_quiet()
        scene.wait_for_the_lease_to_run_out()

    return before


@pytest.fixture
def tap() -> Iterator[TapServer]:
    """Few threats, because each call is a story to tell; their summaries fill more than one object."""
    now = utc_now()
    world = World.from_threats(
        7,
        now=now,
        campaigns=2,
        threats_per_campaign=2,
        report_bytes=REPORT_BYTES,
        campaign_report_bytes=CAMPAIGN_REPORT_BYTES,
    )
    unknown = world.add_threat(answer="unknown")
    world.add_event("messagesBlocked", [unknown.id], created=now - timedelta(minutes=30))
    with TapServer(world, siem_limit=None, latency_seconds=0.1) as server:
        server.pack_reports()
        yield server


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("before", "does"),
    [
        pytest.param(nothing, WRITTEN | NEW - {"read summaries"}, id="a first run"),
        pytest.param(dies_after(1, writes_summaries), NEW | {"write summaries"}, id="a run that takes over"),
    ],
)
@pytest.mark.parametrize("act", [Act.KILL_BEFORE, Act.KILL_AFTER], ids=["before", "after"])
def test_wherever_a_run_is_killed_each_report_and_each_summary_comes_once(
    act: Act, before: Before, does: set[str], new_scene: NewScene
) -> None:
    guess = calls_by_kind(new_scene(**ON), before)
    # The other kinds of calls are the same as without campaigns and summaries.
    guess = Counter({kind: count for kind, count in guess.items() if kind in does})
    stories = told_to_the_end(lambda point: killed_at(new_scene(**ON), before, act, point), guess)
    assert {story.point.kind for story in stories if story.killed_at} == does
    assert not [str(story) for story in stories if story.faults]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("every_attempt", [False, True], ids=["once", "always"])
def test_a_lost_answer_to_a_write_of_summaries_or_campaigns_doubles_nothing(
    every_attempt: bool, new_scene: NewScene
) -> None:
    of_each_kind = [of_kind(written) for written in WRITTEN]
    losses = [nth(number, writes) for writes in of_each_kind for number in (1, 2)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [
            pool.submit(Story, new_scene(**ON, RUN_BUDGET_SECONDS="12"), loss, every_attempt=every_attempt)
            for loss in losses
        ]
        stories = [future.result() for future in futures]
    assert {kind(story.lost) for story in stories if story.lost} == WRITTEN
    assert not [str(story) for story in stories if story.faults]


@pytest.mark.parametrize("writes", [writes_summaries, writes_evidence], ids=["summaries", "campaigns"])
@pytest.mark.parametrize(
    ("of_the_zombie", "of_its_successor"),
    [(SMALL_BATCH_BYTES, ONE_BATCH_BYTES), (ONE_BATCH_BYTES, SMALL_BATCH_BYTES)],
    ids=["smaller", "larger"],
)
def test_a_zombie_s_object_under_the_next_name_counts_as_done(
    of_the_zombie: int, of_its_successor: int, writes: Applies, new_scene: NewScene
) -> None:
    assert_a_zombie_s_object_counts(new_scene(**ON), writes, of_the_zombie, of_its_successor)
