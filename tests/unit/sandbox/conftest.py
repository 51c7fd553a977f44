"""A small world at a fixed time, and two ways to ask the stand-in: as a client, and as bytes on a socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode, urlsplit

import pytest
import urllib3

from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World

NOW = datetime(2025, 5, 1, 12, 0, 20, tzinfo=UTC)
CREDENTIALS = urllib3.make_headers(basic_auth="demo-principal:demo-secret")

Ask = Callable[..., urllib3.BaseHTTPResponse]


@pytest.fixture
def world() -> World:
    return World(3, start=NOW - timedelta(hours=4), end=NOW)


@pytest.fixture
def server(world: World) -> Iterator[TapServer]:
    with TapServer(world, clock=lambda: NOW) as server:
        yield server


@pytest.fixture
def ask(server: TapServer) -> Iterator[Ask]:
    """GET a path of the stand-in with query parameters; the demo credentials unless `headers` say else."""
    with urllib3.PoolManager(retries=False, timeout=5) as pool:

        def get(
            path: str, query: dict[str, str] | None = None, headers: dict[str, str] | None = None
        ) -> urllib3.BaseHTTPResponse:
            url = f"{server.url}{path}?{urlencode(query or {})}"
            return pool.request("GET", url, headers=CREDENTIALS if headers is None else headers)

        yield get


@pytest.fixture
def raw(server: TapServer) -> Iterator[Callable[[str], socket.socket]]:
    """Sends one GET for a target over a socket of its own and hands over the socket, unread."""
    opened: list[socket.socket] = []

    def send(target: str) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=5)
        opened.append(connection)
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {CREDENTIALS['authorization']}\r\n\r\n"
        connection.sendall(head.encode())
        return connection

    yield send
    for connection in opened:
        connection.close()


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def between(start: datetime, end: datetime) -> dict[str, str]:
    """The query for the events of a window, as JSON."""
    return {"format": "json", "interval": f"{iso(start)}/{iso(end)}"}
