"""What the client makes of each status and each broken answer."""

from __future__ import annotations

import gzip
import socket
from datetime import timedelta
from email.utils import format_datetime

import pytest

from tap_forensics.errors import (
    AuthenticationFailed,
    CollectorError,
    RateLimited,
    RequestRejected,
    Unavailable,
)
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tests.support.clocks import NOW
from tests.support.loopback import read_head, serving
from tests.support.settings import PRINCIPAL, SECRET
from tests.support.tap_client import MIB, REPORTS, TOKEN, asked, failed, sending
from tests.unit.conftest import Client, connected


def test_a_good_answer_is_its_body(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b'{"reports":[1]}'))
    with client() as tap:
        found = tap.forensics("t")
    assert (found.status, found.body) == (200, b'{"reports":[1]}')


def test_no_content_is_an_answer(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("status", status=204, body=b""))
    with client() as tap:
        assert tap.forensics("t").status == 204


def test_an_answer_without_a_reason_phrase_is_an_answer(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"{}", reason=""))
    with client() as tap:
        assert tap.forensics("t").body == b"{}"


def test_a_packed_body_comes_unpacked(server: TapServer, client: Client) -> None:
    body = b'{"reports":[]}' * 1000
    server.faults.add(REPORTS, Fault("body", body=gzip.compress(body), headers={"Content-Encoding": "gzip"}))
    with client() as tap:
        assert tap.forensics("t").body == body


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
def test_a_servers_failure_is_unavailable_with_its_words(
    server: TapServer, client: Client, status: int
) -> None:
    server.faults.add(REPORTS, Fault("status", status=status, body=b"Try again later"))
    error = failed(client)
    assert isinstance(error, Unavailable)
    assert (str(error), error.retry_after_seconds) == (
        f'TAP answered {status}: text (under 1 KiB) with the words "try again later"',
        None,
    )


@pytest.mark.parametrize("status", [201, 206, 301, 304, 400, 402, 404, 405, 410, 418, 451])
def test_any_other_answer_is_a_refusal_with_its_words(server: TapServer, client: Client, status: int) -> None:
    server.faults.add(
        REPORTS, Fault("status", status=status, body=b"" if status == 304 else b"no such thing")
    )
    error = failed(client)
    assert isinstance(error, RequestRejected)
    assert error.status == status
    assert (
        str(error)
        == f"TAP answered {status}: {'(no body)' if status == 304 else 'text (under 1 KiB), not shown'}"
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(server: TapServer, client: Client, world: World, status: int) -> None:
    with TapServer(world, clock=lambda: NOW) as elsewhere:
        server.faults.add(
            REPORTS, Fault("status", status=status, headers={"Location": elsewhere.url + REPORTS})
        )
        error = failed(client)
        assert isinstance(error, RequestRejected)
        assert elsewhere.calls == []
    assert len(server.calls) == 1


def test_wrong_credentials_name_the_variables_and_the_remedy(client: Client) -> None:
    error = failed(client, TAP_SECRET=SECRET[::-1])
    assert isinstance(error, AuthenticationFailed)
    for words in ("401", "TAP_PRINCIPAL", "TAP_SECRET", "new service credential in the TAP dashboard"):
        assert words in str(error)


def test_credentials_without_the_right_name_the_variable_and_the_remedy(
    server: TapServer, client: Client
) -> None:
    server.faults.add(REPORTS, Fault("status", status=403))
    error = failed(client)
    assert isinstance(error, AuthenticationFailed)
    for words in ("403", "TAP_PRINCIPAL", "ask for SIEM and Forensics API access"):
        assert words in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), None),
        ("soon", None),
        ("-5", None),
        ("0", None),
        ("999999999999", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wish_for_when_to_ask_again_is_passed_on(
    server: TapServer, client: Client, status: int, header: str | None, seconds: float | None
) -> None:
    headers = {"Retry-After": header} if header else {}
    server.faults.add(REPORTS, Fault("status", status=status, headers=headers))
    error = failed(client)
    assert isinstance(error, RateLimited if status == 429 else Unavailable)
    assert isinstance(error, RateLimited | Unavailable)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationFailed), (403, AuthenticationFailed), (404, RequestRejected), (429, RateLimited)],
)
def test_a_status_counts_even_where_its_body_cannot_be_read(
    server: TapServer, client: Client, status: int, kind: type[CollectorError]
) -> None:
    server.faults.add(
        REPORTS, Fault("status", status=status, body=b"no gzip", headers={"Content-Encoding": "gzip"})
    )
    assert isinstance(failed(client), kind)


@pytest.mark.parametrize("status", [400, 503])
@pytest.mark.parametrize("length", [70, 500, 4096, 4097, 300_000])
def test_a_sentence_of_tap_is_known_again_whatever_follows(
    server: TapServer, client: Client, status: int, length: int
) -> None:
    body = ("The requested interval is too short. " * length)[:length]
    server.faults.add(REPORTS, Fault("status", status=status, body=body.encode()))
    assert str(failed(client)) == f"TAP answered {status}: The requested interval is too short."


@pytest.mark.parametrize(
    ("length", "told"),
    [(4095, "about 4 KiB"), (4096, "over 4 KiB"), (4097, "over 4 KiB"), (300_000, "over 4 KiB")],
)
def test_of_a_long_error_the_size_is_told(server: TapServer, client: Client, length: int, told: str) -> None:
    server.faults.add(REPORTS, Fault("status", status=503, body=b"x" * length))
    assert str(failed(client)) == f"TAP answered 503: text ({told}), not shown"


def test_an_errors_body_without_end_is_not_read_to_its_end() -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        read_head(connection)
        connection.sendall(b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)
            sent += 65536

    with asked(endless) as ask, pytest.raises(Unavailable):
        ask()
    assert sent < 16 * MIB


@pytest.mark.parametrize("status", [302, 400, 404, 418, 429, 500, 503, 401, 403])
def test_credentials_that_the_other_side_echoes_are_not_quoted(
    server: TapServer, client: Client, status: int
) -> None:
    echo = f"Authorization: Basic {TOKEN} for {PRINCIPAL}:{SECRET}!"
    server.faults.add(REPORTS, Fault("status", status=status, body=echo.encode(), headers={"X-Echo": echo}))
    error = failed(client)
    assert not any(word in f"{error!s} {error!r} {error.args}" for word in (SECRET, TOKEN, PRINCIPAL))
    assert error.__cause__ is None


@pytest.mark.parametrize("kind", ["reset", "cut"])
@pytest.mark.parametrize("after_bytes", [0, 5])
def test_an_answer_that_breaks_off_is_unavailable(
    world: World, server: TapServer, client: Client, kind: str, after_bytes: int
) -> None:
    world.add_threat("t")
    world.overrides["t"] = b'{"reports":[]}'
    server.faults.add(REPORTS, Fault(kind, after_bytes=after_bytes))  # type: ignore[arg-type]  # both are kinds
    assert isinstance(failed(client), Unavailable)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: " + b"gzip, " * 50 + b"gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=range(11),
)
def test_what_is_no_sound_http_answer_is_unavailable(reply: bytes) -> None:
    with asked(sending(reply)) as ask, pytest.raises(Unavailable, match="no usable response"):
        ask()


def test_nobody_at_home_is_unavailable() -> None:
    with serving(lambda _: None) as port:
        pass
    with connected(f"http://127.0.0.1:{port}") as tap, pytest.raises(Unavailable):
        tap.forensics("t")
