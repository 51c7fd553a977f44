"""The TAP API over HTTP: credentials, one bounded pool, limits of size and time, status → error.

Knows no bucket and no state. Facts about the API are from Proofpoint's TAP SIEM and Forensics API
documentation, and from what integrators saw on live tenants where it is silent.
"""

from __future__ import annotations

import base64
import io
import math
import socket
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.util import Timeout

from tap_forensics import __version__
from tap_forensics.clock import Clock, Deadline, run_periodically
from tap_forensics.config.settings import Settings
from tap_forensics.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    RateLimited,
    RequestRejected,
    TooLarge,
    Unavailable,
)
from tap_forensics.memory_budget import (
    BUDGET_BYTES,
    EVENTS,
    REPORTS,
    SMALL_BYTES,
    MemoryBudget,
    Scale,
    reserve_events,
    reserve_reports,
)
from tap_forensics.tap.connection import connection_pool, shut
from tap_forensics.tap.quota import FORENSICS, SIEM, PoolStatus, Quota
from tap_forensics.tap.rate_limit import RateLimiter
from tap_forensics.tap.redact import describe, describe_failure
from tap_forensics.tap.retry import parse_retry_after
from tap_forensics.tap.windows import Window

T = TypeVar("T")

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_CALL_SECONDS = 120
_CHUNK_BYTES = 64 * 1024
_PIECE_BYTES = 1024 * 1024
# How zlib.decompressobj is told: gzip, and nothing else.
_GZIP = 31
_ERROR_BODY_BYTES = 4096


@dataclass(frozen=True)
class TapResponse:
    """A 200 or 204. `release` gives the memory for the body back, and must be called when nothing of the
    body is held any more.
    """

    status: int
    body: bytes
    release: Callable[[], None]


class TapClient:
    """One run's connection to TAP. Use as a context manager: leaving it closes every socket.

    `limiters`: one a pool, for `call_rate_limited`. `quota`: what may be called at all.
    `call_seconds`: how long one call may take, from its connection to the last byte.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        deadline: Deadline,
        quota: Quota,
        *,
        call_seconds: float = _CALL_SECONDS,
    ) -> None:
        self._clock, self._deadline, self.quota = clock, deadline, quota
        self._root = urlsplit(settings.tap.api_base).path
        token = base64.b64encode(f"{settings.tap.principal}:{settings.tap.secret}".encode()).decode()
        self._credentials = (settings.tap.principal, settings.tap.secret, token)
        self._headers = {
            "Authorization": f"Basic {token}",
            "Accept-Encoding": "gzip",
            "User-Agent": f"tap-forensics/{__version__}",
        }
        self._selection = [("threatStatus", status) for status in settings.tap.threat_status]
        self._selection += [("threatType", kind) for kind in settings.tap.threat_type]
        self._call_seconds = call_seconds
        self._timeout = Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
        self._closed = False
        self.budget = MemoryBudget(BUDGET_BYTES, self._raise_if_over)
        # Larger bodies are read one at a time: what is not unpacked yet cannot be weighed.
        self._one_large = MemoryBudget(1, self._raise_if_over)
        self._in_flight: dict[int, tuple[float, socket.socket]] = {}
        self._tenant = settings.tenant
        self.limiters = {
            pool: RateLimiter(clock, deadline, probe_only=quota.status(pool, clock.now()) is PoolStatus.PROBE)
            for pool in (SIEM, FORENSICS)
        }
        self._pool = connection_pool(settings, self._began)
        self._stop_watching = run_periodically(0.5, self._cut_overdue)

    def __enter__(self) -> TapClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed = True
        self._stop_watching()
        for _, sock in list(self._in_flight.values()):
            shut(sock)
        self._pool.close()

    def may_retry(self, pool: str) -> bool:
        """Whether one more call may be made for what failed before; counted as made."""
        return self.quota.reserve_retries(pool, 1, self._clock.now()) == 1

    def siem(self, window: Window) -> TapResponse:
        """Everything of one window. Raises as `_get`."""
        # Without format=json the API answers syslog.
        query = urlencode([("format", "json"), ("interval", str(window)), *self._selection])
        return self._weighed(SIEM, f"/v2/siem/all?{query}", EVENTS, reserve_events)

    def forensics(self, threat_id: str) -> TapResponse:
        """The reports of one threat, its campaign's included. Raises as `_get`."""
        query = f"threatId={quote(threat_id, safe='')}&includeCampaignForensics=true"
        return self._weighed(FORENSICS, f"/v2/forensics?{query}", REPORTS, reserve_reports)

    def _weighed(
        self, pool: str, path: str, scale: Scale, reserve: Callable[[MemoryBudget, bytes], Callable[[], None]]
    ) -> TapResponse:
        """One answer, with all the memory reserved that decoding it takes. Raises as `_get`."""
        place = _Place(self._one_large)
        try:
            status, body = self._get(pool, path, scale, place)
            return TapResponse(status, body, reserve(self.budget, body))
        finally:
            place.leave()

    def _get(self, pool: str, path: str, scale: Scale, place: _Place) -> tuple[int, bytes]:
        """One request. Raises `CredentialsRefused`, `RateLimited`, `Unavailable`, `Refused`, `QuotaSpent`,
        `OutOfTime`; nothing of the credentials is in any of them.
        """
        self._raise_if_over()
        self.quota.reserve(pool, self._clock.now())
        thread = threading.get_ident()
        try:
            response = self._pool.urlopen(
                "GET",
                self._root + path,
                headers=self._headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=self._timeout,
            )
            return self._read(pool, response, scale, place)
        except (urllib3.exceptions.HTTPError, zlib.error, OSError) as error:
            self._raise_if_over()
            # Some of these quote what the other side sent.
            raise Unavailable(
                f"no usable answer ({describe_failure(error)})", heavy=self._timed_out(thread, error)
            ) from None
        finally:
            self._in_flight.pop(thread, None)

    def _timed_out(self, thread: int, error: Exception) -> bool:
        """Whether the API took too long; one that cannot be connected to was not asked anything."""
        if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
            return False
        limit, _ = self._in_flight.get(thread, (math.inf, None))
        return isinstance(error, urllib3.exceptions.TimeoutError) or self._clock.monotonic() >= limit

    def _raise_if_over(self) -> None:
        if self._closed or self._deadline.passed():
            raise DeadlineExceeded("the run's deadline came first")

    def _read(
        self, pool: str, response: urllib3.BaseHTTPResponse, scale: Scale, place: _Place
    ) -> tuple[int, bytes]:
        if response.status not in (200, 204):
            body = _read_error(response)
            raise self._error(pool, response.status, response.headers, body)
        try:
            body = _read(response, scale, self.budget.limit, place)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response.status, body

    def _error(self, pool: str, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        retry_after = parse_retry_after(headers.get("Retry-After"), self._clock.now())
        if status in (401, 403):
            return AuthenticationFailed(_refusal(status, self._tenant))
        if status == 429:
            self.quota.count_429(pool)
            return RateLimited("TAP answered 429", retry_after)
        if status == 408 or status >= 500:
            return Unavailable(f"TAP answered {status}: {self._quoted(body)}", retry_after, heavy=True)
        html = body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
        return RequestRejected(
            status, self._quoted(body), html=html or "html" in headers.get("Content-Type", "")
        )

    def _quoted(self, body: bytes) -> str:
        return describe(body, self._credentials, cut=len(body) >= _ERROR_BODY_BYTES)

    def _began(self, sock: socket.socket) -> None:
        limit = min(self._clock.monotonic() + self._call_seconds, self._deadline.at_seconds)
        self._in_flight[threading.get_ident()] = (limit, sock)
        if self._closed:
            shut(sock)

    def _cut_overdue(self) -> None:
        """Socket time-outs start anew with each byte; this ends a call whose bytes drip."""
        now = self._clock.monotonic()
        for limit, sock in list(self._in_flight.values()):
            if now >= limit:
                shut(sock)


AUTHENTICATION_REMEDIES = {
    401: "TAP answered 401: TAP_PRINCIPAL or TAP_SECRET is wrong or was revoked; "
    "make a new service credential in the TAP dashboard (Settings, Connected Applications) and set both",
    403: "TAP answered 403: TAP_PRINCIPAL is known but has no right to this API; "
    "ask for SIEM and Forensics API access for this service credential in the TAP dashboard",
}


def _refusal(status: int, tenant: str | None) -> str:
    sentence = AUTHENTICATION_REMEDIES[status]
    if tenant is None:
        return sentence
    named = sentence.replace("TAP_PRINCIPAL", "principal").replace("TAP_SECRET", "secret")
    return f"{named} (tenant {tenant}, credentials.json)"


class _Place:
    """The one place for a large body: taken while it is read, left when its memory is reserved."""

    def __init__(self, one_large: MemoryBudget) -> None:
        self._one_large = one_large
        self._leave: Callable[[], None] | None = None

    def take(self) -> None:
        self._leave = self._leave or self._one_large.reserve(1)

    def leave(self) -> None:
        if self._leave:
            self._leave()


def _read(response: urllib3.BaseHTTPResponse, scale: Scale, limit: int, place: _Place) -> bytes:
    """The decoded body; raises `TooLarge` as soon as what was read so far is too heavy."""
    body, weight = io.BytesIO(), 0
    for chunk in _chunks(response):
        if body.tell():
            body.write(chunk)
        else:
            # Most bodies are one piece, and stay the bytes they are.
            body = io.BytesIO(chunk)
            body.seek(0, io.SEEK_END)
        if body.tell() <= SMALL_BYTES:
            continue
        place.take()
        weight += scale.weigh(chunk if weight else body.getvalue())
        if weight > limit:
            size = body.tell()
            body.close()
            raise TooLarge(
                f"an answer that needs too much memory was refused while it was read ({size} bytes)"
            )
    return body.getvalue()


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The decoded body, piece by piece. Plain gzip is unpacked here, for two thirds of urllib3's cost."""
    if response.headers.get("Content-Encoding") == "gzip":
        return _unpacked(response.stream(_CHUNK_BYTES, decode_content=False))
    return response.stream(_CHUNK_BYTES, decode_content=True)


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Gzip members, or nothing at all. Raises `zlib.error` where it is something else, `Unavailable` where
    it is cut.
    """
    gunzip, chunk = zlib.decompressobj(_GZIP), b""
    for chunk in chunks:
        # Behind a member there may be noughts, to fill a block.
        left = chunk.lstrip(b"\0") if gunzip.eof else chunk
        while left:
            if gunzip.eof:
                gunzip = zlib.decompressobj(_GZIP)
            yield gunzip.decompress(left, _PIECE_BYTES)
            left = gunzip.unconsumed_tail or gunzip.unused_data.lstrip(b"\0")
    if chunk and not gunzip.eof:
        raise Unavailable("the answer was cut")


def _read_error(response: urllib3.BaseHTTPResponse) -> bytes:
    """The start of an error's body; the status counts even where the body cannot be read."""
    try:
        body = response.read(_ERROR_BODY_BYTES, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError):
        body = b""
    if 0 < len(body) < _ERROR_BODY_BYTES:
        response.release_conn()
    else:
        response.close()
    return body
