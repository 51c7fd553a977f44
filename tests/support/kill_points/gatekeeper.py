"""A gate on loopback between the function and both of its servers, the bucket and TAP.

It passes every call on and keeps a journal of them in order of arrival. By order it kills the function right
before or right after a call, swallows an answer, or holds a call until told.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import urllib3

from tests.support.kill_points.orders import PATIENCE_SECONDS, Act, Applies, Call, Order, Target

# Of one connection, or told anew by the gate; everything else passes as it came.
NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Gatekeeper:
    """The gate, as a context manager; `url` is the address of both servers."""

    def __init__(self, bucket_url: str, tap_url: str) -> None:
        self._servers = {
            "bucket": urllib3.connection_from_url(bucket_url, maxsize=20),
            "tap": urllib3.connection_from_url(tap_url, maxsize=20),
        }
        self._changed = threading.Condition()
        self._journal: list[Call] = []
        self._orders: list[Order] = []
        self._under_way = 0
        self._kill: Callable[[], None] | None = None
        self._dead = False
        self._door = _Door(self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._door.server_port}"

    @property
    def journal(self) -> list[Call]:
        with self._changed:
            return list(self._journal)

    def order(self, act: Act, applies: Applies, *, every_attempt: bool = False) -> Order:
        """Plans an act. Of several orders for one call the first that is still open is followed."""
        order = Order(applies, act, every_attempt=every_attempt)
        with self._changed:
            self._orders.append(order)
        return order

    def guard(self, kill: Callable[[], None]) -> None:
        """Says how the function is killed; `kill` returns when it is dead. Then nothing passes any more."""
        with self._changed:
            self._kill, self._dead = kill, False
            self._changed.notify_all()

    def wait_until(self, holds: Callable[[list[Call]], bool]) -> None:
        """Returns when something holds of the journal, answers included."""
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self._journal), PATIENCE_SECONDS)

    def wait_until_quiet(self) -> None:
        """Returns when no call is on its way: what a dead function sent has landed or never will."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._under_way, PATIENCE_SECONDS)

    def __enter__(self) -> Gatekeeper:
        threading.Thread(target=self._door.serve_forever, args=(0.1,), name="gate", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for order in self._orders:
            order.release()
        self._door.stop()
        for server in self._servers.values():
            server.close()

    def arrived(self, method: str, path: str, body: bytes) -> tuple[Call, Order | None]:
        """Enters a call into the journal, with the order that it meets. Raises `_Gone` if it is too late."""
        target: Target = "tap" if path.startswith("/v2/") else "bucket"
        with self._changed:
            if self._dead:
                raise _Gone
            self._under_way += 1
            call = Call(len(self._journal) + 1, target, method, path, body)
            self._journal.append(call)
            return call, next((order for order in self._orders if order.meets(call)), None)

    def is_over(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def kill(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._kill, PATIENCE_SECONDS), "whom to kill?"
            self._dead = True
            kill = self._kill
        assert kill
        kill()

    def forward(self, call: Call, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Asks the server; the body stays as it comes, packed or not."""
        with self._changed:
            if self._dead:
                raise _Gone
        response = self._servers[call.target].urlopen(
            call.method,
            call.path,
            body=call.body or None,
            headers=headers,
            retries=False,
            redirect=False,
            decode_content=False,
        )
        call.status = response.status
        return response


class _Gone(Exception):
    """The connection is over, without an answer."""


class _Door(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, gate: Gatekeeper) -> None:
        self.gate = gate
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Passage)

    def server_bind(self) -> None:
        # HTTPServer would look its own name up in DNS, which takes seconds on some machines.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def opened(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=5)


class _Passage(BaseHTTPRequestHandler):
    """One connection of the function."""

    server: _Door
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        try:
            with contextlib.suppress(OSError):
                super().finish()
        finally:
            self.server.closed(self.connection)

    def handle(self) -> None:
        # A function that is killed, or that gives up waiting, leaves its connections as they are.
        with contextlib.suppress(_Gone, OSError, urllib3.exceptions.HTTPError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Silent: the journal is the log."""

    def do_GET(self) -> None:
        self._pass()

    def do_POST(self) -> None:
        self._pass()

    def do_PUT(self) -> None:
        self._pass()

    def _pass(self) -> None:
        gate = self.server.gate
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call, order = gate.arrived(self.command, self.path, body)
        try:
            self._obey(gate, call, order)
        finally:
            gate.is_over()

    def _obey(self, gate: Gatekeeper, call: Call, order: Order | None) -> None:
        act = order.act if order else None
        if order and act is Act.HOLD:
            order.hold()
        if act is Act.KILL_BEFORE:
            gate.kill()
            raise _Gone
        response = gate.forward(call, dict(self.headers.items()))
        if act is Act.KILL_AFTER:
            gate.kill()
            raise _Gone
        if act is Act.SWALLOW:
            self._reset()
        self._answer(response)

    def _answer(self, response: urllib3.BaseHTTPResponse) -> None:
        self.send_response_only(response.status, response.reason)
        for name, value in response.headers.items():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.data)))
        self.end_headers()
        self.wfile.write(response.data)

    def _reset(self) -> None:
        """Ends the connection in RST: with a linger of zero the kernel drops it at once, without a FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The socket is closed only when the files made of it are, too.
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        raise _Gone
