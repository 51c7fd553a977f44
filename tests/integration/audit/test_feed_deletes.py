"""A feed that deletes what it has transferred, in a bucket that keeps versions: a takeover finds it there."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from tests.integration.audit.test_first_runs import KilledAfterWrite
from tests.support.events_lab import EVENTS
from tests.support.lab import START, open_lab
from tests.support.scenes import once_each, threats_at

HALF_AN_HOUR_AGO = START - timedelta(minutes=30)


@pytest.mark.parametrize("write", range(1, 6))
def test_what_a_dead_run_wrote_and_the_feed_deleted_is_not_written_again(write: int) -> None:
    """One of these writes is the evidence object, before the commit that would have counted it."""
    with open_lab(threats_at(HALF_AN_HOUR_AGO, 10), LOOKBACK_HOURS="2") as lab:
        lab.bucket.keep_versions()
        with lab.through(KilledAfterWrite(write)):
            lab.run()
        lab.feed_transfers()
        lab.clock.step(minutes=10)
        lab.run_until_done()
        assert once_each(lab)


@pytest.mark.parametrize("write", range(1, 8))
def test_event_lines_that_the_feed_deleted_are_not_written_again(write: int) -> None:
    world = threats_at(HALF_AN_HOUR_AGO, 10)
    with open_lab(world, LOOKBACK_HOURS="2", EVENTS_PREFIX=EVENTS, FORENSICS="off") as lab:
        lab.bucket.keep_versions()
        with lab.through(KilledAfterWrite(write)):
            lab.run()
        lab.feed_transfers()
        lab.clock.step(minutes=10)
        lab.run_until_done()
        guids = Counter(line["messagesDelivered"][0]["GUID"] for line in lab.lines())
        assert guids == Counter(event.body["GUID"] for event in world.events)


def test_a_batch_whose_object_is_gone_between_two_batches_of_the_same_run_s_id_is_found() -> None:
    """Two runs die one after the other, and the feed takes what each of them left."""
    with open_lab(threats_at(HALF_AN_HOUR_AGO, 10), LOOKBACK_HOURS="2", MAX_THREATS="5") as lab:
        lab.bucket.keep_versions()
        for write in (2, 2):
            with lab.through(KilledAfterWrite(write)):
                lab.run()
            lab.feed_transfers()
            lab.clock.step(minutes=10)
        lab.run_until_done()
        assert once_each(lab)
