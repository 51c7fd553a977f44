"""A half of a heavy window may kill the run, too: it is that window which is suspect then."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from requests import PreparedRequest, Response

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.http_messages import Request
from tests.support.lab import SIEM, START, open_lab
from tests.support.lab_bucket import Through
from tests.support.scenes import lasting, once_each, threats_every

HOURS = 12
HEAVY = (START - timedelta(hours=HOURS), START - timedelta(hours=HOURS - 1))


class Mortal(Through):
    """To the bucket, a process that is killed when `dead` is set."""

    dead = False

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        if self.dead:
            raise OSError("this process was killed")
        return super().send(request, *args, **kwargs)


def test_a_window_that_kills_the_run_while_it_is_bisected_is_the_only_suspect() -> None:
    world = threats_every(30, since=HEAVY[0] + timedelta(minutes=5), until=START)
    with open_lab(world, LOOKBACK_HOURS=str(HOURS)) as lab:
        process = Mortal()

        def asks_for_a_half(request: Request) -> bool:
            if request.path != SIEM:
                return False
            start, end = map(datetime.fromisoformat, request.query["interval"].split("/"))
            is_half = start < HEAVY[1] and end - start < timedelta(minutes=40)
            process.dead = process.dead or is_half
            return is_half

        lab.tap.faults.add(asks_for_a_half, Fault("reset", times=None))
        lab.tap.faults.add(SIEM, lasting("status", status=503), overlapping=HEAVY)
        with lab.through(process):
            assert lab.run().error
        reading = [tuple(map(datetime.fromisoformat, window)) for window in lab.state()["lease"]["reading"]]
        assert len(reading) == 1
        assert reading[0][0] < HEAVY[1]
        lab.tap.faults.clear()
        lab.clock.step(minutes=10)
        lab.run_until_done()
        assert once_each(lab)
