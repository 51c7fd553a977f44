"""One window or one threat that can never be had must not keep the others waiting, nor eat the calls."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest

from tap_forensics.sandbox.http_messages import Request
from tests.support.lab import FORENSICS, SIEM, START, Lab, open_lab
from tests.support.scenes import GONE, JSON, lasting, once_each, threats_at, threats_every

HOUR = timedelta(hours=1)
DAY = 24 * HOUR
# A threat that always fails: tried in its first runs, then after longer and longer waits.
FEW_CALLS = 20


def hourly(lab: Lab, hours: int) -> list[str]:
    """So many runs, an hour apart; returns what they said at ERROR."""
    messages = []
    for _ in range(hours):
        messages += lab.run().messages(logging.ERROR)
        lab.clock.step(hours=1)
    return messages


@pytest.mark.parametrize(("limit", "overlap"), [("30", "60"), ("30", "0"), ("60", "60")])
def test_an_hour_that_can_never_be_read_costs_a_small_siem_limit_nothing_else(
    limit: str, overlap: str
) -> None:
    """The limit is enough for each hour of a day once, and hardly for more. With an overlap it is used up
    every day.
    """
    bad = (START + 10 * HOUR, START + 11 * HOUR)
    world = threats_every(60, since=START - HOUR / 2, until=START + 6 * DAY)
    outside = {name for event in world.events for name in event.threat_ids if not in_(bad, event.created)}
    assert len(outside) == len(world.threats) - 1
    with open_lab(world, TAP_SIEM_DAILY_LIMIT=limit, OVERLAP_MINUTES=overlap) as lab:
        lab.tap.faults.add(SIEM, lasting("status", status=503), overlapping=bad)
        hourly(lab, 7 * 24)
        delivered = lab.delivered()
        lost = outside - set(delivered)
        assert not lost
        assert set(delivered.values()) == {1}


def in_(window: tuple[datetime, datetime], moment: datetime) -> bool:
    return window[0] <= moment < window[1]


@pytest.mark.parametrize("seconds", [70, 90, 300])
def test_an_api_whose_clock_is_behind_and_that_answers_404_to_the_future_is_collected(seconds: int) -> None:
    world = threats_every(20, since=START - HOUR / 2, until=START + 10 * HOUR)
    with open_lab(world) as lab:
        lab.tap.clock = lambda: lab.clock.now() - timedelta(seconds=seconds)

        def ends_in_the_future(request: Request) -> bool:
            end = request.query.get("interval", "/").split("/")[1]
            return request.path == SIEM and datetime.fromisoformat(end) > lab.tap.clock()

        lab.tap.faults.add(ends_in_the_future, lasting("status", status=404, body=GONE, headers=JSON))
        for number in range(10):
            assert not lab.run().has_message("Lost")
            # What happened before the last run: each run reads what the one before could not.
            known = {e.threat_ids[0] for e in world.events if e.created < START + (number - 1) * HOUR}
            assert known <= set(lab.delivered()), f"after run {number + 1}"
            lab.clock.step(hours=1)
        lab.tap.faults.clear()
        lab.tap.clock = lab.clock.now
        lab.run_until_done()
        assert once_each(lab)


@pytest.mark.parametrize("seconds", [70, 300, -300])
def test_a_function_whose_clock_is_off_goes_by_the_bucket_s(seconds: int) -> None:
    with open_lab() as lab:
        lab.skew(seconds)
        assert lab.run().stats.outcome == "complete"
        assert once_each(lab)


BAD, GOOD = 30, 10


@pytest.mark.parametrize("limit", [None, "60"])
@pytest.mark.parametrize("status", [503, 302])
def test_thirty_bad_threats_do_not_delay_ten_good_ones_beyond_the_second_run(
    status: int, limit: str | None
) -> None:
    """The bad ones come first by priority. The limit is enough for each once, not for asking again."""
    world = threats_at(START - HOUR / 2, BAD, kind="clicksPermitted")
    bad = set(world.threats)
    for _ in range(GOOD):
        world.add_event("messagesBlocked", [world.add_threat().id], created=START - HOUR / 3)
    with open_lab(world) as lab:
        if limit:
            lab.env["TAP_FORENSICS_DAILY_LIMIT"] = limit
        for name in bad:
            lab.tap.faults.add(FORENSICS, lasting("status", status=status), threat_id=name)
        hourly(lab, 2)
        assert set(lab.delivered()) == lab.truth() - bad
        lab.tap.faults.clear()
        lab.run_until_done(most=60)
        assert once_each(lab)


def test_new_good_threats_go_before_those_that_failed() -> None:
    world = threats_at(START - HOUR / 2, BAD, kind="clicksPermitted")
    bad = set(world.threats)
    with open_lab(world, MAX_THREATS="30") as lab:
        for name in bad:
            lab.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=name)
        hourly(lab, 3)
        for _ in range(GOOD):
            created = lab.tap.clock() - HOUR / 3
            lab.world.add_event("messagesBlocked", [lab.world.add_threat().id], created=created)
        lab.run()
        assert set(lab.delivered()) == lab.truth() - bad


@pytest.mark.parametrize("limit", [None, "150"])
def test_one_bad_threat_uses_few_calls_and_leaves_after_seven_days_by_name(limit: str | None) -> None:
    with open_lab(threats_at(START - HOUR / 2, 1)) as lab:
        if limit:
            lab.env["TAP_FORENSICS_DAILY_LIMIT"] = limit
        (bad,) = lab.world.threats
        lab.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=bad)
        assert not any(bad in line for line in hourly(lab, 6 * 24 + 20))
        assert set(lab.state()["backlog"]) == {bad}
        messages = hourly(lab, 8)
        assert len([line for line in messages if bad in line]) == 1
        assert "backlog" not in lab.state()
        assert len(lab.tap.calls_to(FORENSICS)) <= FEW_CALLS


def test_with_a_limit_failed_threats_use_at_most_a_tenth_of_the_calls_that_are_left() -> None:
    """Thirty bad ones from the day before yesterday, and every hour a good one."""
    world = threats_at(START - HOUR / 2, BAD, kind="clicksPermitted")
    bad = set(world.threats)
    with open_lab(world, TAP_FORENSICS_DAILY_LIMIT="50") as lab:
        for name in bad:
            lab.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=name)
        hourly(lab, 48)
        for _ in range(48):
            created = lab.tap.clock() - HOUR / 3
            lab.world.add_event("messagesBlocked", [lab.world.add_threat().id], created=created)
            lab.run()
            lab.clock.step(hours=1)
        late = len(lab.truth() - bad - set(lab.delivered()))
        assert late <= 3


def test_twenty_answers_too_large_in_a_row_do_not_mean_that_the_api_is_down() -> None:
    world = threats_at(START - HOUR / 2, BAD, kind="clicksPermitted")
    bad = set(world.threats)
    world.add_event("messagesBlocked", [world.add_threat().id], created=START - HOUR / 3)
    heavy = b'{"generated":"","reports":[' + b",".join([b"{}"] * 2_500) + b"]}"
    with open_lab(world, FETCH_CONCURRENCY="1") as lab:
        for name in bad:
            lab.tap.faults.add(FORENSICS, lasting("body", body=heavy), threat_id=name)
        lab.run()
        assert set(lab.delivered()) == lab.truth() - bad
