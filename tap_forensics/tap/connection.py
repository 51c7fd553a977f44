"""The connections to TAP: one pool, through a proxy if one is set, and sockets that can be shut down."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed

import urllib3
from urllib3.util import parse_url

from tap_forensics.config.settings import Settings


def connection_pool(
    settings: Settings, started: Callable[[socket.socket], None]
) -> urllib3.HTTPConnectionPool:
    """One pool to the API's host, through HTTPS_PROXY unless NO_PROXY names the host.

    `started` is called with the socket of each new connection and of each request.
    """
    host = urlsplit(settings.tap.api_base)
    width = settings.forensics.fetch_concurrency + 1
    manager = urllib3.PoolManager(num_pools=1, maxsize=width)
    if (
        settings.tap.https_proxy
        and host.scheme == "https"
        and not _bypassed(host.netloc, settings.tap.no_proxy)
    ):
        auth = parse_url(settings.tap.https_proxy).auth
        token = base64.b64encode(unquote(auth).encode()).decode() if auth else None
        headers = {"Proxy-Authorization": f"Basic {token}"} if token else None
        manager = urllib3.ProxyManager(
            settings.tap.https_proxy, num_pools=1, maxsize=width, proxy_headers=headers
        )
    pool = manager.connection_from_url(settings.tap.api_base)
    pool.ConnectionCls = _reporting(pool.ConnectionCls, started)
    return pool


def _bypassed(netloc: str, no_proxy: str) -> bool:
    return bool(proxy_bypass_environment(netloc, {"no": no_proxy}))


def _reporting(connection: Any, started: Callable[[socket.socket], None]) -> Any:
    """A subclass of `connection` that passes its socket to `started`, as `connection_pool` says."""

    class Reporting(connection):  # type: ignore[misc]  # the base is urllib3's, chosen by scheme at run time
        def _new_conn(self) -> socket.socket:
            sock: socket.socket = super()._new_conn()
            started(sock)
            return sock

        def request(self, *args: Any, **kwargs: Any) -> None:
            super().request(*args, **kwargs)
            started(self.sock)

    return Reporting


def shut(sock: socket.socket) -> None:
    """Makes a blocked read in another thread return, TLS or not."""
    try:
        # With TLS inside TLS (an https proxy) the socket is inside another object.
        socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)
    except OSError:
        return  # closed already
