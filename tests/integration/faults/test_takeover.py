"""A takeover that cannot look for the dead run's objects leaves them to the next one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from requests import PreparedRequest, Response

from tap_forensics.errors import StorageFailed
from tests.support.lab import START, Lab, open_lab
from tests.support.lab_bucket import Through
from tests.support.settings import STATE

DEAD_RUN = "20260304_090000"
WRITTEN = f"tap-forensics/tap_forensics_{DEAD_RUN}.ndjson"


class Failing(Through):
    """Fails the first read of the dead run's object, and nothing else."""

    failed = False

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        if not self.failed and DEAD_RUN in (request.url or "") and request.method == "GET":
            self.failed = True
            raise OSError("no route for a moment")
        return super().send(request, *args, **kwargs)


def leave_a_dead_run(lab: Lab) -> None:
    """Its lease ran out; its first object was written, and not committed."""
    lease = {
        "run_id": DEAD_RUN,
        "owner": "dead",
        "until": (START - timedelta(minutes=30)).isoformat(),
        "started": (START - timedelta(hours=1)).isoformat(),
    }
    lab.bucket.put(STATE, json.dumps({"version": 1, "lease": lease}))
    delivered = next(iter(lab.world.threats))
    line = {"scope": "THREAT", "id": delivered, "_threatId": delivered}
    lab.bucket.put(WRITTEN, json.dumps(line) + "\n", if_generation_match=0)


def test_a_takeover_that_fails_to_look_keeps_the_lease_and_nothing_comes_twice() -> None:
    with open_lab(LOOKBACK_HOURS="2") as lab:
        leave_a_dead_run(lab)
        # Older than its lease by the bucket's clock, too.
        lab.clock.step(minutes=5)
        adapter = Failing()
        with lab.through(adapter):
            assert isinstance(lab.run().failure, StorageFailed)
        assert adapter.failed
        assert lab.state()["lease"]["run_id"] == DEAD_RUN
        lab.clock.step(minutes=5)
        lab.run()
        assert dict(lab.delivered()) == dict.fromkeys(lab.truth(), 1)
