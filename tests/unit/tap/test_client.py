from __future__ import annotations

import base64
import gzip
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime

import pytest

from tap_forensics import __version__
from tap_forensics.errors import (
    AuthenticationFailed,
    CollectorError,
    DeadlineExceeded,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
    Retryable,
    TooLarge,
    Unavailable,
)
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.tap.client import TapClient, TapResponse
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota
from tap_forensics.tap.windows import Window
from tests.support.fakes import NOW, PRINCIPAL, SECRET
from tests.support.loopback import Answering, Handle, answer, read_head, serving
from tests.unit.conftest import Client, connected

REPORTS = "/v2/forensics"
MIB = 1024 * 1024
TOKEN = base64.b64encode(f"{PRINCIPAL}:{SECRET}".encode()).decode()
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


def test_an_answer_that_does_not_fit_in_memory_is_refused_while_it_is_read() -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            connection.sendall(b"x" * MIB)
            sent += MIB

    with (
        asked(endless) as ask,
        pytest.raises(Unavailable, match="needs too much memory was rejected while it was read"),
    ):
        ask()
    assert sent < 50 * MIB


def test_an_answer_of_39_mib_is_read() -> None:
    with asked(sending(answer(b"x" * (39 * MIB)))) as ask:
        assert len(ask().body) == 39 * MIB


def test_many_values_packed_small_are_refused_long_before_all_is_unpacked() -> None:
    packed = gzip.compress(b'{"reports":[' + b"{}," * 3_900_000 + b"{}]}")
    assert len(packed) < 46_000
    with asked(sending(answer(packed, "200 OK", "Content-Encoding: gzip"))) as ask:
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge, match="rejected while it was read"):
                ask()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 12 * MIB


@pytest.mark.parametrize("layers", [1, 2])
def test_a_gzip_bomb_is_refused_without_being_unpacked(
    server: TapServer, client: Client, layers: int
) -> None:
    bomb = gzip.compress(bytes(16 * MIB)) * 64
    for _ in range(layers - 1):
        bomb = gzip.compress(bomb)
    encoding = ", ".join(["gzip"] * layers)
    server.faults.add(REPORTS, Fault("body", body=bomb, headers={"Content-Encoding": encoding}))
    tracemalloc.start()
    try:
        error = failed(client)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, Unavailable)
    assert "rejected while it was read" in str(error)
    assert peak < 150 * MIB


def test_bodies_that_do_not_fit_together_come_one_after_the_other(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"x" * (25 * MIB), times=2))
    second: list[TapResponse] = []
    with client() as tap:
        first = tap.forensics("first")
        thread = threading.Thread(target=lambda: second.append(tap.forensics("second")))
        thread.start()
        thread.join(0.5)
        assert second == []
        first.release()
        thread.join(10)
        assert len(second) == 1


def test_bodies_that_fit_together_do_not_wait_for_each_other(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"x" * (3 * MIB), times=8))
    server.faults.add(REPORTS, Fault("body", body=b"x" * 400_000, times=8))
    with client() as tap, ended_within(10):
        store = [tap.forensics("t") for _ in range(16)]
    assert len(store) == 16


def test_who_waits_for_memory_is_let_go_at_the_deadline(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"x" * (25 * MIB), times=2))
    with client(within_seconds=1.5) as tap, ended_within(10):
        tap.forensics("never released")
        with pytest.raises(DeadlineExceeded):
            tap.forensics("waits")


def test_memory_given_back_twice_is_given_back_once(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"x" * (25 * MIB), times=3))
    with client(within_seconds=3) as tap:
        first = tap.forensics("first")
        first.release()
        first.release()
        tap.forensics("second")
        with pytest.raises(DeadlineExceeded):
            tap.forensics("third")


def test_a_large_body_that_breaks_off_gives_its_place_back(
    world: World, server: TapServer, client: Client
) -> None:
    world.add_threat("t")
    world.overrides["t"] = b"x" * (5 * MIB)
    server.gzip = False
    server.faults.add(REPORTS, Fault("cut", after_bytes=4 * MIB))
    with client() as tap:
        with pytest.raises(Unavailable):
            tap.forensics("t")
        assert len(tap.forensics("t").body) == 5 * MIB


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
    assert (quota.made, quota.refused) == ({SIEM: 1, FORENSICS: 2}, {SIEM: 0, FORENSICS: 1})
    assert len(server.calls) == 3
