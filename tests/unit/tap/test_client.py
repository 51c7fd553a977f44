"""What the client asks, over which connections, and how it ends."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from datetime import timedelta

import pytest

from tap_forensics import __version__
from tap_forensics.errors import (
    DeadlineExceeded,
    QuotaExceeded,
    Retryable,
    Unavailable,
)
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.tap.client import TapClient, TapResponse
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota
from tap_forensics.tap.windows import Window
from tests.support.clocks import NOW
from tests.support.loopback import Answering, answer, read_head, serving
from tests.support.tap_client import REPORTS, TOKEN, asked, ended_within, failed
from tests.unit.conftest import Client, connected

ODD_IDS = [
    "a&b=c",
    "../x",
    "a/b?c#d",
    "a\nb\r\nX-Evil: 1",
    "<script>",
    "ü😀",
    "a+b c%20",
    "\x00",
    "\u202e",
    "'\";--",
]


def test_a_request_carries_the_credentials_and_says_who_asks() -> None:
    api = Answering()
    with asked(api) as ask:
        ask()
    lines = api.heads[0].split("\r\n")
    assert lines[0] == "GET /v2/forensics?threatId=t&includeCampaignForensics=true HTTP/1.1"
    assert {
        f"Authorization: Basic {TOKEN}",
        "Accept-Encoding: gzip",
        f"User-Agent: tap-forensics/{__version__}",
    } <= set(lines)


def test_credentials_beyond_ascii_are_sent_as_utf8() -> None:
    api, principal, secret = Answering(), "prïncipal", "s€cret: with colon"
    with asked(api, TAP_PRINCIPAL=principal, TAP_SECRET=secret) as ask:
        ask()
    token = base64.b64encode(f"{principal}:{secret}".encode()).decode()
    assert f"Authorization: Basic {token}\r\n" in api.heads[0]


def test_a_window_is_asked_for_in_json(server: TapServer, client: Client) -> None:
    with client() as tap:
        tap.siem(Window(NOW - timedelta(hours=1), NOW))
    assert server.calls[0].query == {
        "format": "json",
        "interval": "2026-03-04T09:00:00Z/2026-03-04T10:00:00Z",
    }


def test_the_addresss_own_path_comes_first() -> None:
    api = Answering()
    with serving(api) as port, connected(f"http://127.0.0.1:{port}/base/") as tap:
        tap.forensics("t")
    assert api.heads[0].startswith("GET /base/v2/forensics?")


@pytest.mark.parametrize("odd", ODD_IDS)
def test_an_odd_id_arrives_as_it_is_in_one_parameter(
    world: World, server: TapServer, client: Client, odd: str
) -> None:
    world.add_threat(odd)
    world.overrides[odd] = b'{"reports":[]}'
    with client() as tap:
        assert tap.forensics(odd).body == b'{"reports":[]}'
    (call,) = server.calls
    assert (call.path, call.query) == (REPORTS, {"threatId": odd, "includeCampaignForensics": "true"})


@pytest.mark.parametrize("odd", ODD_IDS)
def test_an_odd_id_is_escaped_to_its_last_character(odd: str) -> None:
    api = Answering()
    with serving(api) as port, connected(f"http://127.0.0.1:{port}") as tap:
        tap.forensics(odd)
    target = api.heads[0].split()[1]
    assert re.fullmatch(r"/v2/forensics\?threatId=[A-Za-z0-9%._~-]+&includeCampaignForensics=true", target)


def test_calls_of_one_thread_share_a_connection() -> None:
    connections: list[int] = []
    api = Answering()

    def counted(connection: socket.socket) -> None:
        connections.append(1)
        api(connection)

    with asked(counted) as ask:
        for _ in range(5):
            ask()
    assert (len(connections), len(api.heads)) == (1, 5)


def test_calls_of_several_threads_are_in_flight_together() -> None:
    together = threading.Barrier(4)

    def answered_together(connection: socket.socket) -> None:
        read_head(connection)
        together.wait(10)
        connection.sendall(answer(b"{}"))

    found: list[TapResponse] = []
    with asked(answered_together) as ask:
        threads = [threading.Thread(target=lambda: found.append(ask())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(found) == 4


@pytest.mark.parametrize(
    "fault",
    [
        Fault("hang"),
        Fault("drip", chunk_bytes=1, delay_seconds=0.1),
        Fault("drip_headers", delay_seconds=0.1),
    ],
    ids=lambda fault: fault.kind,
)
def test_an_answer_that_does_not_come_to_an_end_is_cut_at_the_deadline(
    world: World, server: TapServer, client: Client, fault: Fault
) -> None:
    world.add_threat("t")
    world.overrides["t"] = b"x" * 1000
    server.faults.add(REPORTS, fault)
    with ended_within(5):
        assert isinstance(failed(client, within_seconds=0.5), Retryable)


def test_an_answer_that_drips_is_cut_after_the_time_of_one_call(
    world: World, server: TapServer, client: Client
) -> None:
    world.add_threat("t")
    world.overrides["t"] = b"x" * 1000
    server.faults.add(REPORTS, Fault("drip", chunk_bytes=1, delay_seconds=0.1))
    with ended_within(5):
        assert isinstance(failed(client, call_seconds=0.5), Unavailable)


def test_after_the_deadline_nothing_is_asked(server: TapServer, client: Client) -> None:
    assert isinstance(failed(client, within_seconds=0), DeadlineExceeded)
    assert server.calls == []


def test_a_call_under_way_ends_when_the_client_is_closed(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("hang"))
    ended: list[BaseException] = []

    def ask(tap: TapClient) -> None:
        try:
            tap.forensics("t")
        except Retryable as error:
            ended.append(error)

    with client() as tap:
        thread = threading.Thread(target=ask, args=(tap,))
        thread.start()
        while not server.calls:
            time.sleep(0.001)
    thread.join(5)
    assert len(ended) == 1


def test_every_socket_is_closed_when_the_client_is() -> None:
    closed = threading.Semaphore(0)
    api = Answering()

    def until_closed(connection: socket.socket) -> None:
        api(connection)
        closed.release()

    with serving(until_closed) as port:
        with connected(f"http://127.0.0.1:{port}") as tap:
            threads = [threading.Thread(target=tap.forensics, args=("t",)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            tap.forensics("t")
        assert closed.acquire(timeout=5)


def test_each_call_is_counted_in_its_pool_before_it_is_made(server: TapServer, client: Client) -> None:
    quota = Quota({}, {SIEM: 1, FORENSICS: 2})
    server.faults.add(REPORTS, Fault("reset"))
    server.faults.add(REPORTS, Fault("status", status=429))
    with client(quota=quota) as tap:
        for _ in range(2):
            with pytest.raises(Retryable):
                tap.forensics("t")
        with pytest.raises(QuotaExceeded):
            tap.forensics("t")
        tap.siem(Window(NOW - timedelta(hours=1), NOW))
        with pytest.raises(QuotaExceeded):
            tap.siem(Window(NOW - timedelta(hours=1), NOW))
    assert (quota.made[SIEM], quota.made[FORENSICS]) == (1, 2)
    assert (quota.refused[SIEM], quota.refused[FORENSICS]) == (0, 1)
    assert len(server.calls) == 3
