"""Servers on loopback for what the stand-in cannot be: proxies, TLS, and whoever sends without end."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Handle = Callable[[socket.socket], None]


@contextmanager
def serving(handle: Handle, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Gives the port of a listener that runs `handle` with each connection in a thread of its own.

    Leaving the context ends every connection and waits for the threads.
    """
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), _secured(connection, tls) as secured:
            handle(secured)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept, daemon=True))
        threads[0].start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            _end([listener, *connections], threads)


def _end(sockets: list[socket.socket], threads: list[threading.Thread]) -> None:
    for open_socket in sockets:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(open_socket, socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


@contextmanager
def _secured(connection: socket.socket, tls: ssl.SSLContext | None) -> Iterator[socket.socket]:
    with connection:
        if tls is None:
            yield connection
        else:
            with tls.wrap_socket(connection, server_side=True) as secured:
                yield secured


def read_head(connection: socket.socket) -> str:
    """A request without a body, as far as the empty line that ends it; "" where the other side went."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        head += byte
    return head.decode("latin-1")


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Answering:
    """Answers every request of a connection with the same bytes, and keeps the heads."""

    reply: bytes = answer(b'{"reports":[]}')
    heads: list[str] = field(default_factory=list)

    def __call__(self, connection: socket.socket) -> None:
        while head := read_head(connection):
            self.heads.append(head)
            connection.sendall(self.reply)


@dataclass
class ConnectProxy:
    """A proxy that takes CONNECT only, and leads every name to `port` on loopback."""

    port: int
    heads: list[str] = field(default_factory=list)

    def __call__(self, connection: socket.socket) -> None:
        self.heads.append(read_head(connection))
        with socket.create_connection(("127.0.0.1", self.port)) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _pump(connection, onward)


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Passes bytes both ways until either side ends."""
    ways = {one: other, other: one}
    while True:
        readable, _, _ = select.select(list(ways), [], [])
        for source in readable:
            data = source.recv(65536)
            if not data:
                return
            ways[source].sendall(data)
