"""Events in, objects and answers out; a run that fails says so and leaves things as they were."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.function.conftest import PRINCIPAL, SECRET, Deployment, messages, outcomes
from tests.support.settings import PREFIX, STATE

SIEM = "/v2/siem/all"
FORENSICS = "/v2/forensics"
BUDGET_SECONDS = 6
PATIENCE_SECONDS = 20


def test_an_event_brings_every_threat_s_evidence_and_moves_the_state_on(deployment: Deployment) -> None:
    with deployment.serving() as function:
        before = utc_now()
        assert deployment.post(function)[0] == 200
    assert deployment.delivered() == deployment.expected()
    cursor = datetime.fromisoformat(deployment.state()["last_event_time"])
    assert before - timedelta(seconds=61) <= cursor <= utc_now() - timedelta(seconds=60)
    assert "Successfully processed forensics for 6 threats" in messages(function, "INFO")
    assert outcomes(function) == ["complete"]


def test_the_next_event_brings_nothing_twice(deployment: Deployment) -> None:
    with deployment.serving() as function:
        assert [deployment.post(function)[0] for _ in range(2)] == [200, 200]
    assert deployment.delivered() == deployment.expected()


def test_refused_credentials_fail_the_event_and_leave_its_windows_open(deployment: Deployment) -> None:
    with deployment.serving() as function:
        assert deployment.post(function)[0] == 200
        state, evidence = deployment.state(), deployment.bucket.objects(PREFIX)
        deployment.tap.secret = "renewed elsewhere"  # noqa: S105 (of the stand-in)
        status, body = deployment.post(function)
    assert status == 500
    assert "TAP_SECRET" in body
    assert stands(deployment.state()) == stands(state)
    (window,) = deployment.state()["gaps"]
    assert window["start"] < state["last_event_time"] <= window["end"]
    assert "attempts" not in window
    assert deployment.bucket.objects(PREFIX) == evidence
    refusal, end = messages(function, "ERROR")
    assert refusal.startswith("TAP answered 401: TAP_PRINCIPAL or TAP_SECRET is wrong")
    assert end == "Run failed"


def stands(state: dict[str, Any]) -> dict[str, Any]:
    """What a failed run must not touch: all but its own name, its plan, and the calls that it made."""
    its_own = ("last_run_id", "last_owner", "last_event_time", "gaps", "calls")
    return {key: value for key, value in state.items() if key not in its_own}


def test_a_server_serves_on_after_a_failed_run(deployment: Deployment) -> None:
    deployment.tap.faults.add(SIEM, Fault("status", status=401))
    with deployment.serving() as function:
        assert [deployment.post(function)[0] for _ in range(2)] == [500, 200]
    assert deployment.delivered() == deployment.expected()
    assert outcomes(function) == ["failed", "complete"]


def test_a_state_that_cannot_be_read_fails_the_event_and_stays_byte_for_byte(deployment: Deployment) -> None:
    with deployment.serving() as function:
        for garbage in (b"", b"{", b'{"version":3}', b'{"last_event_time":7}', b"\xff\xfe"):
            deployment.bucket.put(STATE, garbage)
            status, body = deployment.post(function)
            assert status == 500
            assert f"gs://{deployment.bucket.name}/{STATE}" in body
            assert deployment.bucket.objects() == {STATE: garbage}
    assert not deployment.tap.calls


def test_a_bucket_that_is_not_there_fails_the_event_before_anything_is_asked(deployment: Deployment) -> None:
    with deployment.serving(GCS_BUCKET="no-such-bucket") as function:
        status, _ = deployment.post(function)
    assert status == 500
    assert messages(function, "ERROR")[0].endswith("check GCS_BUCKET: there is no such bucket")
    assert not deployment.tap.calls


def test_a_mounted_secret_that_changes_is_used_by_the_next_run(
    deployment: Deployment, tmp_path: Path
) -> None:
    mounted = {name: tmp_path / name for name in ("TAP_PRINCIPAL", "TAP_SECRET")}
    mounted["TAP_PRINCIPAL"].write_text(f"{PRINCIPAL}\n")
    mounted["TAP_SECRET"].write_text("the one before\n")
    env = {name: value for name, value in deployment.env().items() if name not in mounted}
    env |= {f"{name}_FILE": str(file) for name, file in mounted.items()}
    with deployment.serving(env) as function:
        assert deployment.post(function)[0] == 500
        mounted["TAP_SECRET"].write_text(f"{SECRET}\n")
        assert deployment.post(function)[0] == 200
    assert deployment.delivered() == deployment.expected()


HANGS = [
    pytest.param(SIEM, Fault("hang", times=None), id="SIEM hangs"),
    pytest.param(FORENSICS, Fault("hang", times=None), id="forensics hangs"),
    pytest.param(SIEM, Fault("drip", times=None, chunk_bytes=1, delay_seconds=0.2), id="SIEM drips"),
    pytest.param(FORENSICS, Fault("drip_headers", times=None, delay_seconds=0.2), id="forensics drips"),
]


@pytest.mark.parametrize(("path", "fault"), HANGS)
def test_a_run_ends_inside_its_budget_whatever_the_api_does_and_the_next_one_makes_up(
    path: str, fault: Fault, deployment: Deployment
) -> None:
    deployment.tap.faults.add(path, fault)
    with deployment.serving(RUN_BUDGET_SECONDS=str(BUDGET_SECONDS)) as function:
        began = time.monotonic()
        assert deployment.post(function)[0] == 200
        assert time.monotonic() - began < BUDGET_SECONDS
        assert "lease" not in deployment.state()
        deployment.tap.faults.assert_all_met()
        deployment.tap.faults.clear()
        assert deployment.post(function)[0] == 200
    assert outcomes(function) == ["incomplete", "complete"]
    assert deployment.delivered() == deployment.expected()


GOOD = BAD = 4


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="what a process holds is counted in /proc")
def test_events_good_and_bad_leave_no_thread_and_no_descriptor_behind(deployment: Deployment) -> None:
    # Of its own the server has two threads, of which one may start late.
    with deployment.serving(THREADS="2") as function:
        assert deployment.post(function)[0] == 200
        threads, descriptors = held_by(function.pid)
        deployment.tap.faults.add(SIEM, Fault("status", times=BAD, status=401))
        answers = [deployment.post(function)[0] for _ in range(BAD + GOOD)]
        assert answers == [500] * BAD + [200] * GOOD
        # One left behind by each good event, or by each bad one, would be more.
        settle_at(function.pid, threads + 1, descriptors + 1)


def settle_at(leader: int, threads: int, descriptors: int) -> None:
    """Waits until the server holds no more than this."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (store := held_by(leader))[0] > threads or store[1] > descriptors:
        assert time.monotonic() < until, (
            f"{store} threads and descriptors, and not ({threads}, {descriptors})"
        )
        time.sleep(0.05)


def held_by(leader: int) -> tuple[int, int]:
    """Threads and open descriptors of all processes in a group."""
    group = [place for place in Path("/proc").glob("[0-9]*") if in_group(int(place.name), leader)]
    threads, descriptors = (sum(len(list(p.glob(f"{kind}/*"))) for p in group) for kind in ("task", "fd"))
    return threads, descriptors


def in_group(pid: int, leader: int) -> bool:
    try:
        return os.getpgid(pid) == leader
    except ProcessLookupError:
        return False
