"""A threat leaves the backlog seven days after it was last seen: by name, and not before."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from tests.support.lab import FORENSICS, START, Lab, open_lab
from tests.support.scenes import lasting, threats_at

HOUR = timedelta(hours=1)
DAY = 24 * HOUR


def every_six_hours(lab: Lab, until: datetime) -> list[str]:
    """Runs up to a moment; returns what they said at ERROR."""
    messages = []
    while lab.tap.clock() < until:
        messages += lab.run().messages(logging.ERROR)
        lab.clock.step(hours=6)
    return messages


def test_what_the_quota_never_reached_leaves_by_name_at_error() -> None:
    """It did not fail, it was never asked for: one call a day for thirty threats."""
    with open_lab(threats_at(START - HOUR / 2, 30), TAP_FORENSICS_DAILY_LIMIT="1") as lab:
        assert every_six_hours(lab, START + 6 * DAY + 12 * HOUR) == []
        assert lab.delivered().keys() | set(lab.state()["backlog"]) == lab.truth()
        errors = every_six_hours(lab, START + 8 * DAY)
        named = {name for name in lab.truth() if any(name in line for line in errors)}
        assert "backlog" not in lab.state()
        assert named
        assert named | lab.delivered().keys() == lab.truth()
        assert not named & lab.delivered().keys()


def test_a_threat_that_is_seen_again_waits_seven_days_more() -> None:
    with open_lab(threats_at(START - HOUR / 2, 1)) as lab:
        (name,) = lab.world.threats
        lab.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=name)
        lab.world.add_event("messagesBlocked", [name], created=START + 5 * DAY)
        assert every_six_hours(lab, START + 11 * DAY + 12 * HOUR) == []
        assert set(lab.state()["backlog"]) == {name}
        errors = every_six_hours(lab, START + 13 * DAY)
        assert len([line for line in errors if name in line]) == 1
        assert "backlog" not in lab.state()


def test_the_backlog_says_when_a_threat_was_first_and_last_seen() -> None:
    with open_lab(threats_at(START - HOUR / 2, 1)) as lab:
        (name,) = lab.world.threats
        lab.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=name)
        lab.run()
        before = lab.state()["backlog"][name]
        assert before["first_seen"] == before["last_seen"]
        lab.clock.step(hours=3)
        lab.world.add_event("messagesBlocked", [name], created=lab.tap.clock() - HOUR / 2)
        lab.run()
        after = lab.state()["backlog"][name]
        assert after["first_seen"] == before["first_seen"]
        assert datetime.fromisoformat(after["last_seen"]) >= START + 2 * HOUR


def test_a_threat_that_left_is_not_remembered_as_collected() -> None:
    """When TAP shows it again later, it is news."""
    with open_lab(threats_at(START - HOUR / 2, 1)) as lab:
        (name,) = lab.world.threats
        lab.tap.faults.add(FORENSICS, lasting("status", status=503), threat_id=name)
        every_six_hours(lab, START + 7 * DAY + 8 * HOUR)
        assert "backlog" not in lab.state()
        lab.tap.faults.clear()
        lab.world.add_event("messagesBlocked", [name], created=lab.tap.clock() - HOUR / 2)
        lab.run_until_done()
        assert lab.delivered() == {name: 1}
