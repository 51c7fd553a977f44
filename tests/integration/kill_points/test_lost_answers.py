"""The write landed and its answer did not come: once, or for every attempt of the library."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.kill_points.conftest import NewScene
from tests.support.kill_points.orders import Act, Applies, Call, nth
from tests.support.kill_points.runner import Ending
from tests.support.kill_points.scene import Scene, kind, writes_evidence

pytestmark = pytest.mark.slow

AT_ONCE = 16
WRITES = {"write state", "write evidence", "write handover"}


def writes(call: Call) -> bool:
    return call.writes


class Story:
    """A run that loses the answer to one of its writes; then as many as it takes."""

    def __init__(self, scene: Scene, loses: Applies, *, every_attempt: bool) -> None:
        with scene.gate() as gate:
            order = gate.order(Act.SWALLOW, loses, every_attempt=every_attempt)
            self.ending = scene.start(gate).end()
            self.first_write = next(call.number for call in gate.journal if call.writes)
            self.lease_left = "lease" in scene.state()
            attempts = [call for call in gate.journal if order.call and call.body == order.call.body]
        self.lost, self.attempts = order.call, len(attempts)
        self.log_of_the_run = scene.log
        since = utc_now()
        scene.run_until_done()
        self.faults = scene.check(since)
        self.log = scene.log

    def __str__(self) -> str:
        return f"lost the answer to {self.lost}: {'; '.join(self.faults)}\n{self.log}"


def of_kind(wanted: str) -> Applies:
    return lambda call: kind(call) == wanted


def told_to_the_end(new_scene: Callable[[], Scene], *, every_attempt: bool) -> list[Story]:
    """The stories of the writes 1, 2, … until a run makes no more of them; and of one write of each kind, for
    how many a run makes depends on its pace, and so does which number the last of them has.
    """
    stories: list[Story] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def tell(losses: list[Applies]) -> list[Story]:
            futures = [pool.submit(Story, new_scene(), one, every_attempt=every_attempt) for one in losses]
            return [story.result() for story in futures]

        while not stories or stories[-1].lost:
            stories += tell([nth(len(stories) + n, writes) for n in range(1, AT_ONCE + 1)])
        stories += tell([of_kind(wanted) for wanted in sorted(WRITES)])
    lost = [story for story in stories if story.lost]
    assert {kind(story.lost) for story in lost if story.lost} == WRITES
    assert all(story.attempts > 1 for story in lost)
    return lost


def test_an_answer_lost_once_costs_nothing_but_a_second_attempt(new_scene: NewScene) -> None:
    stories = told_to_the_end(new_scene, every_attempt=False)
    assert not [str(story) for story in stories if story.faults or story.ending is not Ending.COMPLETE]


@pytest.mark.timeout(180)
def test_a_write_that_is_never_answered_ends_well_or_fails_the_run_and_nothing_comes_twice(
    new_scene: NewScene,
) -> None:
    # The library is given as long as the run has left, but ten seconds at least.
    stories = told_to_the_end(lambda: new_scene(RUN_BUDGET_SECONDS="12"), every_attempt=True)
    assert not [str(story) for story in stories if story.faults]
    assert not [str(story) for story in stories if ended_without_a_word(story)]
    assert not [str(story) for story in stories if story.lease_left != must_leave_its_lease(story)]


def ended_without_a_word(story: Story) -> bool:
    """Only the published function's object may stay behind in a run that ends well; waiting costs time."""
    if story.ending is Ending.FAILED:
        return "ERROR   could not write gs://" not in story.log_of_the_run
    ended_well = story.ending in (Ending.COMPLETE, Ending.INCOMPLETE)
    return not ended_well or "WARNING" not in story.log_of_the_run


def must_leave_its_lease(story: Story) -> bool:
    """So that the next run looks for the object in doubt; and where the lease itself never became certain."""
    assert story.lost
    return writes_evidence(story.lost) or story.lost.number == story.first_write
