"""A takeover that cannot look for the dead run's objects leaves them to the next one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from tap_forensics.errors import StorageFailed
from tests.faults.lab import START, STATE, Lab, lab

DEAD_RUN = "20260304_090000"
WRITTEN = f"tap-forensics/tap_forensics_{DEAD_RUN}.ndjson"


class Failing(HTTPAdapter):
    """Fails the first read of the dead run's object, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = False

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
    with lab() as the:
        leave_a_dead_run(the)
        open_client, adapter = the.bucket.client, Failing()

        def failing() -> Any:
            client = open_client()
            client._http.mount("http://", adapter)
            return client

        the.bucket.client = failing  # type: ignore[method-assign]  # this run's way to the bucket
        assert isinstance(the.run().failure, StorageFailed)
        assert adapter.failed
        assert the.state()["lease"]["run_id"] == DEAD_RUN
        the.bucket.client = open_client  # type: ignore[method-assign]  # as above
        the.time.advance(minutes=5)
        the.run()
        assert dict(the.delivered()) == dict.fromkeys(the.truth(), 1)
