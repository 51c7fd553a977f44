"""Where collecting begins is fixed by the first run, whatever becomes of that run."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from requests import PreparedRequest, Response

from tests.support.lab import FORENSICS, SIEM, START, Lab, open_lab
from tests.support.lab_bucket import Through
from tests.support.scenes import lasting, once_each, threats_every

HOUR = timedelta(hours=1)
SIX_HOURS = 6


class KilledAfterWrite(Through):
    """To the bucket, a process that is killed as soon as its n-th write has landed."""

    def __init__(self, number: int = 1) -> None:
        super().__init__()
        self.left = number

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        if not self.left:
            raise OSError("this process was killed")
        response = super().send(request, *args, **kwargs)
        if request.method == "POST":
            self.left -= 1
            if not self.left:
                raise OSError("this process was killed")
        return response


def thirty_five_threats(minutes: float = 12) -> Any:
    """From the start of the first run's lookback to the run after six bad hours."""
    since = START - timedelta(minutes=57)
    return threats_every(minutes, since=since, until=START + SIX_HOURS * HOUR - timedelta(minutes=5))


def recovers(lab: Lab) -> None:
    lab.tap.faults.clear()
    runs = lab.run_until_done(most=60)
    assert not any(result.has_message("Lost", logging.ERROR) for result in runs)
    assert len(lab.truth()) == 35
    assert once_each(lab)


@pytest.mark.parametrize("path", [SIEM, FORENSICS])
@pytest.mark.parametrize("status", [401, 403, 503, 429])
def test_six_hours_of_refusals_from_the_first_run_on_lose_nothing(status: int, path: str) -> None:
    with open_lab(thirty_five_threats(), LOOKBACK_HOURS="1") as lab:
        lab.tap.faults.add(path, lasting("status", status=status))
        for _ in range(SIX_HOURS):
            lab.run()
            lab.clock.step(hours=1)
        recovers(lab)


@pytest.mark.parametrize("write", [1, 2])
def test_six_hours_of_kills_from_the_first_run_on_lose_nothing(write: int) -> None:
    with open_lab(thirty_five_threats(), LOOKBACK_HOURS="1") as lab:
        for _ in range(SIX_HOURS):
            with lab.through(KilledAfterWrite(write)):
                lab.run()
            lab.clock.step(hours=1)
        recovers(lab)


def test_several_hours_of_lookback_that_found_the_api_down_are_read_later() -> None:
    world = threats_every(24, since=START - 8 * HOUR + HOUR / 6, until=START + 6 * HOUR - HOUR / 12)
    with open_lab(world, LOOKBACK_HOURS="8") as lab:
        lab.tap.faults.add(SIEM, lasting("status", status=503))
        for _ in range(SIX_HOURS):
            lab.run()
            lab.clock.step(hours=1)
        recovers(lab)


def test_the_commit_that_takes_the_lease_holds_the_plan() -> None:
    with open_lab(LOOKBACK_HOURS="5") as lab:
        with lab.through(KilledAfterWrite()):
            lab.run()
        state = lab.state()
        assert state["lease"]
        windows = sorted((each["start"], each["end"]) for each in state["gaps"])
        assert datetime.fromisoformat(windows[0][0]) <= START - 5 * HOUR + timedelta(seconds=5)
        assert windows[-1][1] == state["last_event_time"]
        assert all(end == start for (_, end), (start, _) in pairwise(windows))
        assert not lab.tap.calls
