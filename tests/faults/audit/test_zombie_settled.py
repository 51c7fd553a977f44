"""A zombie's object settled a threat whose own fetch then fails: it is done, and the run goes on."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from requests import PreparedRequest, Response

from tap_forensics.sandbox.faults import Fault
from tests.faults.audit.scenes import once_each, threats_at, wait_until
from tests.faults.lab import FORENSICS, START, Lab, Ran, lab
from tests.faults.lab_bucket import Through

MORE_THAN_A_BATCH_MAY_WAIT_SECONDS = 61


class Conflicts(Through):
    """Counts the writes that the server refused."""

    met = 0

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        response = super().send(request, *args, **kwargs)
        self.met += response.status_code == 412
        return response


def a_zombie_wrote(the: Lab, threat_id: str) -> None:
    """Under the name that the run at work takes for its first batch."""
    line = json.dumps({"scope": "THREAT", "id": threat_id, "_threatId": threat_id})
    run_id = the.state()["lease"]["run_id"]
    the.bucket.put(f"tap-forensics/tap_forensics_{run_id}.ndjson", line + "\n", if_generation_match=0)


def run_past_the_conflict(the: Lab, held_back: str) -> Ran:
    """This threat's answer comes only after the batch of all others met the zombie's object."""
    conflicts = Conflicts()
    with the.through(conflicts), ThreadPoolExecutor(1) as pool:
        try:
            run = pool.submit(the.run)
            wait_until(lambda: answered(the) == len(the.world.threats) - 1)
            a_zombie_wrote(the, held_back)
            the.time.sleep(MORE_THAN_A_BATCH_MAY_WAIT_SECONDS)
            wait_until(lambda: conflicts.met > 0)
        finally:
            the.tap.faults.release()
        return run.result(30)


def answered(the: Lab) -> int:
    return sum(call.status is not None for call in the.tap.calls_to(FORENSICS))


@pytest.mark.parametrize(
    "afterwards",
    [
        pytest.param(Fault("status", times=None), id="fails"),
        pytest.param(Fault("status", times=None, status=302), id="is refused"),
        pytest.param(Fault("delay", times=None, delay_seconds=0.01), id="succeeds"),
    ],
)
def test_a_threat_that_a_zombie_delivered_is_done_whatever_becomes_of_its_own_fetch(
    afterwards: Fault,
) -> None:
    with lab(threats_at(START - timedelta(minutes=20), 4)) as the:
        held_back = list(the.world.threats)[-1]
        the.tap.faults.add(FORENSICS, Fault("hang"), threat_id=held_back)
        the.tap.faults.add(FORENSICS, afterwards, threat_id=held_back)
        ran = run_past_the_conflict(the, held_back)
        assert ran.says("Another run had written", logging.WARNING)
        assert once_each(the)
        assert held_back not in the.state().get("backlog", {})
        the.tap.faults.clear()
        the.time.advance(hours=1)
        assert the.run().good.outcome == "complete"
        assert once_each(the)
