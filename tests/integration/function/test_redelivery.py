"""A message that comes again while a dead run's lease is held is not acknowledged."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import urllib3

from tap_forensics.sandbox.faults import Fault
from tests.integration.function.conftest import Deployment, messages, outcomes
from tests.support.settings import STATE

FORENSICS = "/v2/forensics"
# The holder renews it every third of that, by the bucket's clock.
LEASE_SECONDS = 8
PATIENCE_SECONDS = 30


def seconds_since_the_last_commit(deployment: Deployment) -> float:
    blob = deployment.bucket.client().bucket(deployment.bucket.name).get_blob(STATE)
    return float((datetime.now(UTC) - blob.updated).total_seconds())


def test_a_redelivery_after_a_kill_is_asked_to_come_again_until_the_lease_is_free(
    deployment: Deployment,
) -> None:
    lease = str(LEASE_SECONDS)
    deployment.tap.faults.add(FORENSICS, Fault("hang", times=None))
    with deployment.serving(LEASE_SECONDS=lease) as second, ThreadPoolExecutor(1) as trigger:
        with deployment.serving(LEASE_SECONDS=lease) as first:
            answer = trigger.submit(deployment.post, first)
            until = time.monotonic() + PATIENCE_SECONDS
            while not deployment.tap.calls_to(FORENSICS) and time.monotonic() < until:
                time.sleep(0.05)
            assert deployment.post(second)[0] == 200, "the holder is at work: nothing to do"
            assert outcomes(second) == ["busy"]
            first.kill()
            with pytest.raises(urllib3.exceptions.ProtocolError):
                answer.result()
        deployment.tap.faults.clear()
        while seconds_since_the_last_commit(deployment) < LEASE_SECONDS * 5 / 8:
            time.sleep(0.05)
        status, body = deployment.post(second)
        assert status == 503
        assert "has missed its renewal" in body
        assert second.wait_for_log("has missed its renewal")
        while deployment.post(second)[0] == 503 and time.monotonic() < until:
            time.sleep(0.2)
    assert deployment.delivered() == deployment.expected()
    assert not messages(second, "ERROR")
