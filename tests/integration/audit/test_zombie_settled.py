"""A zombie's object settled a threat whose own fetch then fails: it is done, and the run goes on."""

from __future__ import annotations

import json
import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from requests import PreparedRequest, Response

from tap_forensics.sandbox.faults import Fault
from tests.support.lab import FORENSICS, START, Lab, open_lab
from tests.support.lab_bucket import Through
from tests.support.scenes import once_each, threats_at

# One report is a batch.
REPORT_BYTES = 4_500_000
EVIDENCE = re.compile(rb'"name": ?"(tap-forensics/tap_forensics_[^"]+)"')


class Zombie(Through):
    """Writes this threat under the name of the run's first object, a moment before the run does.

    When the run has moved on to the next name, it knows what the zombie wrote: the threat's own answer comes.
    """

    def __init__(self, lab: Lab, threat_id: str) -> None:
        super().__init__()
        self.the, self.threat_id = lab, threat_id
        self.wrote = ""

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        body = request.body if isinstance(request.body, bytes) else b""
        if found := EVIDENCE.search(body):
            self._meets(found[1].decode())
        return super().send(request, *args, **kwargs)

    def _meets(self, name: str) -> None:
        if not self.wrote:
            self.wrote = name
            line = {"scope": "THREAT", "id": self.threat_id, "_threatId": self.threat_id}
            self.the.bucket.put(name, json.dumps(line) + "\n", if_generation_match=0)
        elif name != self.wrote:
            self.the.tap.faults.release()


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
    with open_lab(threats_at(START - timedelta(minutes=20), 4)) as lab:
        lab.world.reports.report_bytes = REPORT_BYTES
        settled = list(lab.world.threats)[-1]
        lab.tap.faults.add(FORENSICS, Fault("hang"), threat_id=settled)
        lab.tap.faults.add(FORENSICS, afterwards, threat_id=settled)
        with lab.through(Zombie(lab, settled)):
            result = lab.run()
        assert result.stats.outcome == "complete"
        assert result.has_message("Another run had written", logging.WARNING)
        assert once_each(lab)
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        assert lab.run().stats.outcome == "complete"
        assert once_each(lab)
