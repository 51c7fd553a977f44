"""Ways to ask the stand-in, or a server of the test's own, through the client."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tap_forensics.errors import (
    CollectorError,
)
from tap_forensics.tap.client import TapResponse
from tests.support.loopback import Handle, read_head, serving
from tests.support.settings import PRINCIPAL, SECRET
from tests.unit.conftest import Client, connected

REPORTS = "/v2/forensics"
MIB = 1024 * 1024
TOKEN = base64.b64encode(f"{PRINCIPAL}:{SECRET}".encode()).decode()


@contextmanager
def asked(handle: Handle, **given: object) -> Iterator[Callable[[], TapResponse]]:
    """A way to ask whatever answers as `handle` does for the reports of one threat."""
    with serving(handle) as port, connected(f"http://127.0.0.1:{port}", **given) as client:  # type: ignore[arg-type]  # passed on
        yield lambda: client.forensics("t")


def sending(reply: bytes) -> Handle:
    """Reads one request, sends these bytes and hangs up."""

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(reply)

    return handle


def failed(client: Client, **given: object) -> CollectorError:
    """How asking for one threat fails."""
    with client(**given) as tap, pytest.raises(CollectorError) as caught:
        tap.forensics("t")
    return caught.value


@contextmanager
def ended_within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds
