"""A threat leaves the backlog seven days after it was last seen: by name, and not before."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from tests.support.lab import FORENSICS, START, Lab, lab
from tests.support.scenes import lasting, threats_at

HOUR = timedelta(hours=1)
DAY = 24 * HOUR


def every_six_hours(the: Lab, until: datetime) -> list[str]:
    """Runs up to a moment; returns what they said at ERROR."""
    said = []
    while the.tap.clock() < until:
        said += the.run().said(logging.ERROR)
        the.time.advance(hours=6)
    return said


def test_what_the_quota_never_reached_leaves_by_name_at_error() -> None:
    """It did not fail, it was never asked for: one call a day for thirty threats."""
    with lab(threats_at(START - HOUR / 2, 30), TAP_FORENSICS_DAILY_LIMIT="1") as the:
        assert every_six_hours(the, START + 6 * DAY + 12 * HOUR) == []
        assert the.delivered().keys() | set(the.state()["backlog"]) == the.truth()
        errors = every_six_hours(the, START + 8 * DAY)
        named = {name for name in the.truth() if any(name in line for line in errors)}
        assert "backlog" not in the.state()
        assert named
        assert named | the.delivered().keys() == the.truth()
        assert not named & the.delivered().keys()


def test_a_threat_that_is_seen_again_waits_seven_days_more() -> None:
    with lab(threats_at(START - HOUR / 2, 1)) as the:
        (name,) = the.world.threats
        the.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=name)
        the.world.add_event("messagesBlocked", [name], created=START + 5 * DAY)
        assert every_six_hours(the, START + 11 * DAY + 12 * HOUR) == []
        assert set(the.state()["backlog"]) == {name}
        errors = every_six_hours(the, START + 13 * DAY)
        assert len([line for line in errors if name in line]) == 1
        assert "backlog" not in the.state()


def test_the_backlog_says_when_a_threat_was_first_and_last_seen() -> None:
    with lab(threats_at(START - HOUR / 2, 1)) as the:
        (name,) = the.world.threats
        the.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=name)
        the.run()
        before = the.state()["backlog"][name]
        assert before["first_seen"] == before["last_seen"]
        the.time.advance(hours=3)
        the.world.add_event("messagesBlocked", [name], created=the.tap.clock() - HOUR / 2)
        the.run()
        after = the.state()["backlog"][name]
        assert after["first_seen"] == before["first_seen"]
        assert datetime.fromisoformat(after["last_seen"]) >= START + 2 * HOUR


def test_a_threat_that_left_is_not_remembered_as_collected() -> None:
    """When TAP shows it again later, it is news."""
    with lab(threats_at(START - HOUR / 2, 1)) as the:
        (name,) = the.world.threats
        the.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=name)
        every_six_hours(the, START + 7 * DAY + 8 * HOUR)
        assert "backlog" not in the.state()
        the.tap.faults.clear()
        the.world.add_event("messagesBlocked", [name], created=the.tap.clock() - HOUR / 2)
        the.run_until_done()
        assert the.delivered() == {name: 1}
