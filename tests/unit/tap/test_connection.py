from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tap_forensics.errors import Retryable, Unavailable
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.tap.connection import connection_pool
from tests.support.loopback import Answering, ConnectProxy, read_head, serving
from tests.support.settings import make_settings
from tests.unit.conftest import Client, connected

# The name stands in no DNS that this test could ask: only the proxy leads there.
HOST = "tap.example.com"
BASE = f"https://{HOST}"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return authority


def tls_for(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def api() -> Answering:
    return Answering()


@pytest.fixture
def origin(api: Answering, authority: trustme.CA) -> Iterator[int]:
    """The port of an API over TLS, which answers as tap.example.com, localhost and 127.0.0.1."""
    with serving(api, tls_for(authority, HOST, "localhost", "127.0.0.1")) as port:
        yield port


@pytest.fixture
def proxy(origin: int) -> ConnectProxy:
    return ConnectProxy(origin)


@contextmanager
def refusing(status: str) -> Iterator[int]:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with serving(refuse) as port:
        yield port


def test_tls_is_spoken_with_an_authority_of_the_environment(origin: int, api: Answering) -> None:
    with connected(f"https://localhost:{origin}") as tap:
        assert tap.forensics("t").status == 200
    assert len(api.heads) == 1


def test_a_certificate_of_an_unknown_authority_is_refused(
    origin: int, api: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with connected(f"https://localhost:{origin}") as tap, pytest.raises(Unavailable, match="SSLError"):
        tap.forensics("t")
    assert api.heads == []


def test_a_certificate_for_another_host_is_refused(authority: trustme.CA, api: Answering) -> None:
    with (
        serving(api, tls_for(authority, "elsewhere.example.com")) as port,
        connected(f"https://localhost:{port}") as tap,
        pytest.raises(Unavailable, match="SSLError"),
    ):
        tap.forensics("t")
    assert api.heads == []


def test_the_api_is_reached_through_the_proxy_by_its_name(proxy: ConnectProxy, api: Answering) -> None:
    with serving(proxy) as port, connected(BASE, HTTPS_PROXY=f"http://127.0.0.1:{port}") as tap:
        assert tap.forensics("t").status == 200
    assert proxy.heads[0].startswith(f"CONNECT {HOST}:443 HTTP/1.")
    assert "Proxy-Authorization" not in proxy.heads[0]
    assert len(api.heads) == 1


def test_tap_credentials_go_to_the_api_only_and_proxy_credentials_to_the_proxy_only(
    proxy: ConnectProxy, api: Answering
) -> None:
    with serving(proxy) as port, connected(BASE, HTTPS_PROXY=f"http://user:pass@127.0.0.1:{port}") as tap:
        tap.forensics("t")
    given = base64.b64encode(b"user:pass").decode()
    assert f"proxy-authorization: basic {given}".lower() in proxy.heads[0].lower()
    assert "\nauthorization:" not in proxy.heads[0].lower()
    assert "proxy-authorization" not in api.heads[0].lower()
    assert "\nauthorization: basic" in api.heads[0].lower()


@pytest.mark.parametrize(
    ("written", "meant"),
    [("p%40ss%3Aw%2Frd", "p@ss:w/rd"), ("100%25", "100%"), ("p%C3%A4ss", "päss")],
)
def test_an_escaped_password_of_the_proxy_is_sent_as_it_is_meant(
    proxy: ConnectProxy, written: str, meant: str
) -> None:
    with (
        serving(proxy) as port,
        connected(BASE, HTTPS_PROXY=f"http://user:{written}@127.0.0.1:{port}") as tap,
    ):
        tap.forensics("t")
    line = next(
        line for line in proxy.heads[0].split("\r\n") if line.lower().startswith("proxy-authorization")
    )
    assert base64.b64decode(line.split()[-1]).decode() == f"user:{meant}"


@pytest.mark.parametrize("no_proxy", ["localhost", "LOCALHOST", "x.example.com, localhost", "*"])
def test_a_host_that_no_proxy_names_is_reached_without_it(
    origin: int, proxy: ConnectProxy, no_proxy: str
) -> None:
    with (
        serving(proxy) as port,
        connected(
            f"https://localhost:{origin}", HTTPS_PROXY=f"http://127.0.0.1:{port}", NO_PROXY=no_proxy
        ) as tap,
    ):
        assert tap.forensics("t").status == 200
    assert proxy.heads == []


@pytest.mark.parametrize("no_proxy", ["example.com", ".example.com", f"{HOST}:443", HOST])
def test_no_proxy_may_name_a_domain_or_a_port(no_proxy: str) -> None:
    base = f"{BASE}:443" if ":" in no_proxy else BASE
    settings = make_settings(TAP_API_BASE=base, HTTPS_PROXY="http://proxy.example", NO_PROXY=no_proxy)
    # Asked, the client would look the name up: what it is about to do is told by its pool.
    assert connection_pool(settings, lambda _: None).proxy is None


@pytest.mark.parametrize("no_proxy", ["", "other.example.com", "ocalhost", "localhost:1"])
def test_a_host_that_no_proxy_does_not_name_is_reached_through_it(
    origin: int, proxy: ConnectProxy, no_proxy: str
) -> None:
    with (
        serving(proxy) as port,
        connected(
            f"https://localhost:{origin}", HTTPS_PROXY=f"http://127.0.0.1:{port}", NO_PROXY=no_proxy
        ) as tap,
    ):
        assert tap.forensics("t").status == 200
    assert proxy.heads[0].startswith(f"CONNECT localhost:{origin} ")


def test_a_stand_in_on_plain_loopback_needs_no_proxy(
    server: TapServer, client: Client, proxy: ConnectProxy
) -> None:
    server.faults.add("/v2/forensics", Fault("body", body=b"{}"))
    with serving(proxy) as port, client(HTTPS_PROXY=f"http://127.0.0.1:{port}") as tap:
        tap.forensics("t")
    assert (len(server.calls), proxy.heads) == (1, [])


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_a_proxy_that_refuses_is_unavailable_and_its_password_is_not_told(status: str) -> None:
    with (
        refusing(status) as port,
        connected(BASE, HTTPS_PROXY=f"http://user:hunter22@127.0.0.1:{port}") as tap,
        pytest.raises(Unavailable) as caught,
    ):
        tap.forensics("t")
    assert str(caught.value) == f"no usable response (ProxyError: the proxy answered {status})"


def test_a_proxy_that_is_away_is_unavailable() -> None:
    with serving(lambda _: None) as port:
        pass
    with connected(BASE, HTTPS_PROXY=f"http://127.0.0.1:{port}") as tap, pytest.raises(Unavailable):
        tap.forensics("t")


def dripping(connection: socket.socket) -> None:
    """Answers CONNECT byte by byte, for ten seconds at most."""
    read_head(connection)
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 " + b"x" * 87:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)


def test_a_proxy_whose_answer_drips_is_cut_at_the_deadline() -> None:
    begun = time.monotonic()
    with (
        serving(dripping) as port,
        connected(BASE, within_seconds=1, HTTPS_PROXY=f"http://127.0.0.1:{port}") as tap,
    ):
        with pytest.raises(Retryable):
            tap.forensics("t")
        assert time.monotonic() - begun < 5


def hanging(connection: socket.socket) -> None:
    """Takes a request and says nothing for ten seconds, or until the client goes."""
    read_head(connection)
    connection.settimeout(10)
    connection.recv(1)


def test_a_proxy_may_itself_be_reached_over_tls(
    proxy: ConnectProxy, authority: trustme.CA, api: Answering
) -> None:
    with (
        serving(proxy, tls_for(authority, "localhost")) as port,
        connected(BASE, HTTPS_PROXY=f"https://localhost:{port}") as tap,
    ):
        assert tap.forensics("t").status == 200
    assert len(api.heads) == 1


def test_behind_a_proxy_over_tls_a_call_that_hangs_is_cut_at_the_deadline_too(authority: trustme.CA) -> None:
    begun = time.monotonic()
    with (
        serving(hanging, tls_for(authority, HOST)) as origin,
        serving(ConnectProxy(origin), tls_for(authority, "localhost")) as port,
        connected(BASE, within_seconds=1, HTTPS_PROXY=f"https://localhost:{port}") as tap,
    ):
        with pytest.raises(Retryable):
            tap.forensics("t")
        assert time.monotonic() - begun < 5
