"""A feed that deletes what it has transferred, in a bucket that keeps versions: a takeover finds it there."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from tests.integration.audit.test_first_runs import KilledAfterWrite
from tests.support.events_lab import EVENTS
from tests.support.lab import START, lab
from tests.support.scenes import once_each, threats_at

HALF_AN_HOUR_AGO = START - timedelta(minutes=30)


@pytest.mark.parametrize("write", range(1, 6))
def test_what_a_dead_run_wrote_and_the_feed_deleted_is_not_written_again(write: int) -> None:
    """One of these writes is the evidence object, before the commit that would have counted it."""
    with lab(threats_at(HALF_AN_HOUR_AGO, 10), LOOKBACK_HOURS="2") as the:
        the.bucket.keep_versions()
        with the.through(KilledAfterWrite(write)):
            the.run()
        the.feed_transfers()
        the.time.advance(minutes=10)
        the.run_until_done()
        assert once_each(the)


@pytest.mark.parametrize("write", range(1, 8))
def test_event_lines_that_the_feed_deleted_are_not_written_again(write: int) -> None:
    world = threats_at(HALF_AN_HOUR_AGO, 10)
    with lab(world, LOOKBACK_HOURS="2", EVENTS_PREFIX=EVENTS, FORENSICS="off") as the:
        the.bucket.keep_versions()
        with the.through(KilledAfterWrite(write)):
            the.run()
        the.feed_transfers()
        the.time.advance(minutes=10)
        the.run_until_done()
        told = Counter(line["messagesDelivered"][0]["GUID"] for line in the.lines())
        assert told == Counter(event.body["GUID"] for event in world.events)


def test_a_batch_whose_object_is_gone_between_two_batches_of_the_same_run_s_id_is_found() -> None:
    """Two runs die one after the other, and the feed takes what each of them left."""
    with lab(threats_at(HALF_AN_HOUR_AGO, 10), LOOKBACK_HOURS="2", MAX_THREATS="5") as the:
        the.bucket.keep_versions()
        for write in (2, 2):
            with the.through(KilledAfterWrite(write)):
                the.run()
            the.feed_transfers()
            the.time.advance(minutes=10)
        the.run_until_done()
        assert once_each(the)
