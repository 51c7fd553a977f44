from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import urllib3

from tap_forensics.sandbox.faults import Fault, FaultPlan
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tests.unit.sandbox.conftest import NOW, Ask, between

HOUR = (NOW - timedelta(hours=2), NOW - timedelta(hours=1))
Raw = Callable[[str], socket.socket]


@pytest.fixture
def target(world: World) -> str:
    name = next(n for n, t in world.threats.items() if t.answer == "report")
    return f"/v2/forensics?threatId={name}"


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_status_comes_as_often_as_told_and_then_the_truth(ask: Ask, server: TapServer) -> None:
    server.faults.add("/v2/siem/all", Fault("status", times=2, status=500, headers={"Retry-After": "7"}))
    answers = [ask("/v2/siem/all", between(*HOUR)) for _ in range(3)]
    assert [answer.status for answer in answers] == [500, 500, 200]
    assert answers[0].headers["retry-after"] == "7"
    server.faults.assert_all_met()


def test_a_reset_is_seen_as_a_reset(raw: Raw, server: TapServer, target: str) -> None:
    server.faults.add("/v2/forensics", Fault("reset"))
    with pytest.raises(ConnectionResetError):
        raw(target).recv(1)
    assert server.calls[-1].status is None


def test_a_cut_promises_more_than_it_sends(raw: Raw, server: TapServer, target: str) -> None:
    server.faults.add("/v2/forensics", Fault("cut", after_bytes=100))
    head, body = read_all(raw(target)).split(b"\r\n\r\n")
    promised = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    assert len(body) == 100 < promised


def test_a_drip_sends_the_whole_body_in_pieces(raw: Raw, server: TapServer, world: World) -> None:
    threat = world.add_threat()
    world.overrides[threat.id] = b'{"reports":[]}'
    server.faults.add("/v2/forensics", Fault("drip", chunk_bytes=7, delay_seconds=0.02))
    started = time.monotonic()
    connection = raw(f"/v2/forensics?threatId={threat.id}")
    received = b""
    while not received.endswith(b'{"reports":[]}'):
        received += connection.recv(65536)
    assert time.monotonic() - started >= 0.02


def test_a_dripped_head_comes_byte_by_byte(raw: Raw, server: TapServer, target: str) -> None:
    server.faults.add("/v2/forensics", Fault("drip_headers", delay_seconds=0.001))
    connection = raw(target)
    assert len(connection.recv(65536)) < len(b"HTTP/1.1 200 OK")


def test_a_hang_answers_nothing_until_it_is_released(raw: Raw, server: TapServer, target: str) -> None:
    server.faults.add("/v2/forensics", Fault("hang"))
    connection = raw(target)
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    server.faults.release()
    connection.settimeout(5)
    assert read_all(connection) == b""


def test_a_server_stops_while_a_request_hangs_in_it(world: World) -> None:
    with TapServer(world) as server, urllib3.PoolManager(retries=False) as pool:
        server.faults.add("/v2/forensics", Fault("hang"))
        with pytest.raises(urllib3.exceptions.TimeoutError):
            pool.request("GET", f"{server.url}/v2/forensics", timeout=0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 2


def test_a_body_fault_sends_the_very_bytes(ask: Ask, server: TapServer) -> None:
    headers = {"Content-Type": "text/html"}
    server.faults.add("/v2/siem/all", Fault("body", body=b"\xef\xbb\xbf<html>", headers=headers))
    answer = ask("/v2/siem/all", between(*HOUR))
    assert (answer.status, answer.data, answer.headers["content-type"]) == (
        200,
        b"\xef\xbb\xbf<html>",
        "text/html",
    )


def test_a_delay_answers_late_and_truly(ask: Ask, server: TapServer) -> None:
    server.faults.add("/v2/siem/all", Fault("delay", delay_seconds=0.05))
    started = time.monotonic()
    assert ask("/v2/siem/all", between(*HOUR)).status == 200
    assert time.monotonic() - started >= 0.05


def test_a_fault_meets_only_the_requests_it_is_meant_for(ask: Ask, server: TapServer, world: World) -> None:
    first, second, *_ = [n for n, t in world.threats.items() if t.answer == "report"]
    plan = server.faults
    plan.add("/v2/forensics", Fault("status"), threat_id=second)
    plan.add(
        "/v2/siem/all", Fault("status", status=500), overlapping=(HOUR[0], HOUR[0] + timedelta(seconds=1))
    )
    plan.add(lambda request: "campaignId" in request.args, Fault("status", status=502))
    assert ask("/v2/forensics", {"threatId": first}).status == 200
    assert ask("/v2/forensics", {"threatId": second}).status == 503
    assert ask("/v2/siem/all", between(HOUR[1], HOUR[1] + timedelta(minutes=1))).status == 200
    assert ask("/v2/siem/all", between(*HOUR)).status == 500
    assert ask("/v2/forensics", {"campaignId": world.campaigns[0]}).status == 502


def test_a_fault_never_met_fails_the_test(world: World) -> None:
    with (
        pytest.raises(AssertionError, match=r"hang on /v2/forensics \(met 0 of 2\)"),
        TapServer(world) as server,
    ):
        server.faults.add("/v2/forensics", Fault("hang", times=2))


def test_a_fault_for_ever_must_be_met_once() -> None:
    plan = FaultPlan()
    plan.add("/v2/siem/all", Fault("status", times=None))
    with pytest.raises(AssertionError):
        plan.assert_all_met()


def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such fault"):
        Fault("explode")  # type: ignore[arg-type]  # the slip under test


def test_faults_can_be_told_counted_and_cleared_over_http(ask: Ask, server: TapServer) -> None:
    order = {"path": "/v2/siem/all", "fault": {"kind": "status", "status": 502, "body": "told"}}
    with urllib3.PoolManager(retries=False) as pool:
        accepted = pool.request("POST", f"{server.url}/_sandbox/faults", body=json.dumps(order).encode())
        wrong = pool.request("POST", f"{server.url}/_sandbox/faults", body=b'{"fault": {"kind": "explode"}}')
        assert (accepted.status, wrong.status) == (204, 400)
        answer = ask("/v2/siem/all", between(*HOUR))
        assert (answer.status, answer.data) == (502, b"told")
        faults = pool.request("GET", f"{server.url}/_sandbox/faults").json()
        assert faults == [{"name": "status on /v2/siem/all", "met": 1, "times": 1}]
        calls = pool.request("GET", f"{server.url}/_sandbox/calls").json()
        assert [(call["status"], call["fault"]) for call in calls] == [(502, "status")]
        pool.request("DELETE", f"{server.url}/_sandbox/faults")
    assert server.faults.counts() == []
