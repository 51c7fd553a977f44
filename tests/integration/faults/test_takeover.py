"""A takeover that cannot look for the dead run's objects leaves them to the next one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from requests import PreparedRequest, Response

from tap_forensics.errors import StorageFailed
from tests.support.lab import START, STATE, Lab, lab
from tests.support.lab_bucket import Through

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


def leave_a_dead_run(the: Lab) -> None:
    """Its lease ran out; its first object was written, and not committed."""
    lease = {
        "run_id": DEAD_RUN,
        "owner": "dead",
        "until": (START - timedelta(minutes=30)).isoformat(),
        "started": (START - timedelta(hours=1)).isoformat(),
    }
    the.bucket.put(STATE, json.dumps({"version": 1, "lease": lease}))
    delivered = next(iter(the.world.threats))
    line = {"scope": "THREAT", "id": delivered, "_threatId": delivered}
    the.bucket.put(WRITTEN, json.dumps(line) + "\n", if_generation_match=0)


def test_a_takeover_that_fails_to_look_keeps_the_lease_and_nothing_comes_twice() -> None:
    with lab(LOOKBACK_HOURS="2") as the:
        leave_a_dead_run(the)
        # Older than its lease by the bucket's clock, too.
        the.time.advance(minutes=5)
        adapter = Failing()
        with the.through(adapter):
            assert isinstance(the.run().failure, StorageFailed)
        assert adapter.failed
        assert the.state()["lease"]["run_id"] == DEAD_RUN
        the.time.advance(minutes=5)
        the.run()
        assert dict(the.delivered()) == dict.fromkeys(the.truth(), 1)
