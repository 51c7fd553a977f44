"""Several events at once on two servers of the function with one bucket, as on two Cloud Run instances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tap_forensics.sandbox.cloudevents import FunctionServer, post_event
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.kill_points.conftest import NewScene
from tests.support.kill_points.gatekeeper import Gatekeeper
from tests.support.kill_points.orders import Act
from tests.support.kill_points.scene import Scene, reads_state, writes_evidence

pytestmark = pytest.mark.slow

EVENTS = 4
BUSY = "Nothing to do: "


@pytest.fixture
def scene(new_scene: NewScene) -> Scene:
    return new_scene(LEASE_SECONDS="60", K_SERVICE="tap-forensics-collector")


@pytest.fixture
def gate(scene: Scene) -> Iterator[Gatekeeper]:
    with scene.gate() as gate:
        yield gate


@pytest.fixture
def servers(scene: Scene, gate: Gatekeeper) -> Iterator[list[FunctionServer]]:
    with ExitStack() as stack:
        env = scene.environment(gate)
        yield [stack.enter_context(FunctionServer(env)) for _ in range(2)]


def post_all(pool: ThreadPoolExecutor, servers: list[FunctionServer]) -> list[Future[tuple[int, str]]]:
    """Turn by turn: each server gets half of the events."""
    return [pool.submit(post_event, servers[n % len(servers)].url) for n in range(EVENTS)]


def entries(servers: list[FunctionServer]) -> list[dict[str, Any]]:
    return [json.loads(line) for server in servers for line in server.log]


def outcomes(servers: list[FunctionServer]) -> list[str]:
    return sorted(entry["run"]["outcome"] for entry in entries(servers) if "run" in entry)


def assert_the_others_ended_well(servers: list[FunctionServer]) -> None:
    assert outcomes(servers) == ["busy"] * (EVENTS - 1) + ["complete"]
    assert sum(entry["message"].startswith(BUSY) for entry in entries(servers)) == EVENTS - 1
    assert {entry["severity"] for entry in entries(servers)} == {"INFO"}


def forensics_calls(gate: Gatekeeper) -> list[str]:
    return [call.path for call in gate.journal if call.path.startswith("/v2/forensics")]


def test_of_four_events_that_read_the_same_state_exactly_one_works(
    scene: Scene, gate: Gatekeeper, servers: list[FunctionServer]
) -> None:
    since = utc_now()
    reads = [gate.order(Act.HOLD, reads_state) for _ in range(EVENTS)]
    with ThreadPoolExecutor(EVENTS) as pool:
        answers = post_all(pool, servers)
        for read in reads:
            read.wait_until_met()
        for read in reads:
            read.release()
        assert [answer.result()[0] for answer in answers] == [200] * EVENTS
    assert_the_others_ended_well(servers)
    assert sorted(forensics_calls(gate)) == sorted(set(forensics_calls(gate)))
    assert not scene.check(since)


def test_three_events_that_come_while_a_run_is_at_work_change_nothing(
    scene: Scene, gate: Gatekeeper, servers: list[FunctionServer]
) -> None:
    since = utc_now()
    upload = gate.order(Act.HOLD, writes_evidence)
    with ThreadPoolExecutor(EVENTS) as pool:
        working = pool.submit(post_event, servers[0].url)
        upload.wait_until_met()
        before = scene.objects()
        others = [pool.submit(post_event, servers[n % 2].url) for n in range(EVENTS - 1)]
        assert [answer.result()[0] for answer in others] == [200] * (EVENTS - 1)
        assert scene.objects() == before
        upload.release()
        assert working.result()[0] == 200
    assert_the_others_ended_well(servers)
    assert not scene.check(since)


def test_a_redelivered_event_after_a_good_run_writes_no_evidence(
    scene: Scene, servers: list[FunctionServer]
) -> None:
    for server in servers:
        assert post_event(server.url, event_id="the same event")[0] == 200
    before, since = scene.evidence(), utc_now()
    assert post_event(servers[0].url, event_id="the same event")[0] == 200
    assert scene.evidence() == before
    assert not scene.check(since)
