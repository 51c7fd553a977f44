"""The HTTP server: reads requests from sockets, sends responses, and performs faults byte by byte.

Built on the standard library's HTTP server. Werkzeug's server, which Flask uses, closes every connection
after one response and delays that by 10 ms. A WSGI application cannot reset a connection or send a
response head slowly.
"""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tap_forensics.sandbox.faults import Fault, FaultPlan
from tap_forensics.sandbox.http_messages import Call, Request, Response

BODILESS = {204, 304}


class HangupError(Exception):
    """This connection has ended; nothing more may be sent on it."""


@dataclass(frozen=True)
class Handlers:
    """The functions that the server calls.

    `answer` returns the normal response to a request. `begin` adds a call to the journal and returns it;
    `end` marks it as finished. `control` handles requests under `/_sandbox/`, without journal or faults.
    """

    answer: Callable[[Request], Response]
    begin: Callable[[Request], Call]
    end: Callable[[], None]
    control: Callable[[Request, bytes], Response]


class WireServer(ThreadingHTTPServer):
    """One thread per connection, keep-alive, on loopback."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        port: int,
        handlers: Handlers,
        faults: FaultPlan,
    ) -> None:
        self.answer, self.begin, self.end = handlers.answer, handlers.begin, handlers.end
        self.faults, self.control = faults, handlers.control
        self.latency_seconds = 0.0
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up its own name in DNS, which takes seconds on some machines.
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
        """Stops serving, shuts down every connection, and waits until the handlers have closed them."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=5)


class Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    server: WireServer
    protocol_version = "HTTP/1.1"
    server_version = "tap-stand-in"
    sys_version = ""
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        try:
            # A client that disconnects during a response is not an error of the server.
            with contextlib.suppress(ConnectionError):
                super().finish()
        finally:
            self.server.closed(self.connection)

    def handle(self) -> None:
        with contextlib.suppress(HangupError, ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Logs nothing: the journal is the log."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        request = Request.read(self.command, self.path, dict(self.headers.items()))
        if request.path.startswith("/_sandbox/"):
            length = int(self.headers.get("Content-Length") or 0)
            self._send(packet(self.server.control(request, self.rfile.read(length))))
            return
        call = self.server.begin(request)
        try:
            self._meet(request, call)
        finally:
            self.server.end()

    def _meet(self, request: Request, call: Call) -> None:
        fault = self.server.faults.match(request)
        if self.server.latency_seconds:
            self.server.stopping.wait(self.server.latency_seconds)
        if fault is None:
            self._reply(self.server.answer(request), call)
            return
        call.fault = fault.kind
        self._perform(fault, request, call)

    def _reply(self, response: Response, call: Call) -> None:
        call.status = response.status
        self._send(packet(response))

    def _send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def _perform(self, fault: Fault, request: Request, call: Call) -> None:
        if fault.kind in {"status", "body"}:
            status = 200 if fault.kind == "body" else fault.status
            headers = {"Content-Type": "application/json"} | dict(fault.headers)
            self._reply(Response(status, fault.body, headers, fault.reason), call)
        elif fault.kind == "hang":
            self._hang()
        elif fault.kind == "reset" and not fault.after_bytes:
            self._reset()
        else:
            self._spoil(fault, self.server.answer(request), call)

    def _spoil(self, fault: Fault, response: Response, call: Call) -> None:
        """Sends the normal response in the way that the fault defines."""
        if fault.kind == "delay":
            self._pause(fault.delay_seconds)
            self._reply(response, call)
            return
        call.status = response.status
        start = head(response)
        if fault.kind == "drip":
            self._send(start)
            self._drip(response.body, fault.chunk_bytes, fault.delay_seconds)
        elif fault.kind == "drip_headers":
            self._drip(start, 1, fault.delay_seconds)
            self._send(response.body)
        else:
            self._send(start + response.body[: fault.after_bytes])
            if fault.kind == "reset":
                self._reset()
            raise HangupError

    def _drip(self, data: bytes, chunk_bytes: int, delay_seconds: float) -> None:
        for offset in range(0, len(data), chunk_bytes):
            self._send(data[offset : offset + chunk_bytes])
            self._pause(delay_seconds)

    def _pause(self, seconds: float) -> None:
        if self.server.stopping.wait(seconds):
            raise HangupError

    def _hang(self) -> None:
        """Sends nothing until the client disconnects, the plan releases its hangs, or the server stops."""
        released = self.server.faults.released
        while not released.wait(0.02) and not self.server.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                break
        raise HangupError

    def _reset(self) -> None:
        """Ends the connection with RST: if SO_LINGER is zero, the kernel drops it at once, without a FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The socket is closed only when the file objects made from it are closed too.
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        raise HangupError


def head(response: Response) -> bytes:
    """Status line and headers. Content-Length is added if a body is allowed and the header is missing."""
    try:
        usual = HTTPStatus(response.status).phrase
    except ValueError:
        usual = ""
    reason = usual if response.reason is None else response.reason
    lines = [f"HTTP/1.1 {response.status} {reason}", "Server: tap-stand-in"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    told = any(name.lower() == "content-length" for name in response.headers)
    if response.status not in BODILESS and not told:
        lines.append(f"Content-Length: {len(response.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def packet(response: Response) -> bytes:
    """The whole response as bytes, for a single write."""
    return head(response) + (b"" if response.status in BODILESS else response.body)
