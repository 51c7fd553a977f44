"""The TAP API over HTTP: credentials, one bounded connection pool, size and time limits, status → error.

Facts about the API are from Proofpoint's TAP SIEM and Forensics API documentation; if it says nothing, from
what integrators saw on live tenants.
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
from tap_forensics.tap.quota import (
    CAMPAIGN_FORENSICS,
    FORENSICS,
    POOLS,
    SIEM,
    SUMMARIES,
    THREAT_FORENSICS,
    PoolStatus,
    Quota,
)
from tap_forensics.tap.rate_limit import RateLimiter
from tap_forensics.tap.redact import describe, describe_failure
from tap_forensics.tap.retry import parse_retry_after
from tap_forensics.tap.windows import Window

T = TypeVar("T")

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_CALL_SECONDS = 120
_CHUNK_BYTES = 64 * 1024
_UNPACKED_PIECE_BYTES = 1024 * 1024
# wbits of zlib.decompressobj: gzip only.
_GZIP_WBITS = 31
_ERROR_BODY_BYTES = 4096
_FORENSICS_PARAMETER = {
    FORENSICS: "threatId",
    THREAT_FORENSICS: "threatId",
    CAMPAIGN_FORENSICS: "campaignId",
}


@dataclass(frozen=True)
class TapResponse:
    """A 200 or 204. `release` frees the memory reservation; call it when nothing refers to the body."""

    status: int
    body: bytes
    release: Callable[[], None]


class TapClient:
    """One run's connections to TAP. A context manager: its exit closes every socket.

    `limiters`: one per pool, for `call_rate_limited`. `quota`: counts the calls and enforces their limit.
    `call_seconds`: the limit for one call, from connecting to the last byte.
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
        self._event_filter = [("threatStatus", status) for status in settings.tap.threat_status]
        self._event_filter += [("threatType", kind) for kind in settings.tap.threat_type]
        self._call_seconds = call_seconds
        self._timeout = Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
        self._closed = False
        self.budget = MemoryBudget(BUDGET_BYTES, self._raise_if_over)
        # Large bodies are read one at a time, because they can only be weighed once they are unpacked.
        self._large_bodies = MemoryBudget(1, self._raise_if_over)
        self._in_flight: dict[int, tuple[float, socket.socket]] = {}
        self._deadlines: dict[int, Deadline] = {}
        self._tenant = settings.tenant
        self.limiters = {pool: RateLimiter(clock, deadline) for pool in POOLS}
        self._pool = connection_pool(settings, self._started)
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
        """Reserves one call for an item that failed before; False if the quota leaves none."""
        return self.quota.reserve_retries(pool, 1, self._clock.now()) == 1

    def expect_429(self, pool: str) -> None:
        """Call it before the calls of a pool: if its limit was learned before, a 429 is not retried."""
        if self.quota.has_learned(pool):
            status = self.quota.status(pool, self._clock.now())
            self.limiters[pool].limit_is_known(probe=status is PoolStatus.PROBE)

    def siem(self, window: Window) -> TapResponse:
        """All events of one window. Raises as `_get`."""
        # The default of `format` is syslog.
        query = urlencode([("format", "json"), ("interval", str(window)), *self._event_filter])
        return self._request(SIEM, f"/v2/siem/all?{query}", EVENTS, reserve_events)

    def forensics(self, name: str, pool: str = FORENSICS) -> TapResponse:
        """The reports of a threat or a campaign: `pool` is the type of request. Raises as `_get`."""
        query = f"{_FORENSICS_PARAMETER[pool]}={quote(name, safe='')}"
        if pool == FORENSICS:
            query += "&includeCampaignForensics=true"
        return self._request(pool, f"/v2/forensics?{query}", REPORTS, reserve_reports)

    def summary(self, threat_id: str) -> TapResponse:
        """What TAP knows of one threat; it "currently has no throttle limits". Raises as `_get`."""
        path = f"/v2/threat/summary/{quote(threat_id, safe='')}"
        return self._request(SUMMARIES, path, REPORTS, reserve_reports)

    def _request(
        self, pool: str, path: str, scale: Scale, reserve: Callable[[MemoryBudget, bytes], Callable[[], None]]
    ) -> TapResponse:
        """One response, with the memory reserved that decoding it needs. Raises as `_get`."""
        slot = _BodySlot(self._large_bodies)
        try:
            status, body = self._get(pool, path, scale, slot)
            return TapResponse(status, body, reserve(self.budget, body))
        finally:
            slot.release()

    def _get(self, pool: str, path: str, scale: Scale, slot: _BodySlot) -> tuple[int, bytes]:
        """One request. Raises `AuthenticationFailed`, `RateLimited`, `Unavailable`, `RequestRejected`,
        `QuotaExceeded` or `DeadlineExceeded`; no error contains anything of the credentials.
        """
        self._raise_if_over()
        self.quota.reserve(pool, self._clock.now())
        thread = threading.get_ident()
        self._deadlines[thread] = self.limiters[pool].deadline
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
            return self._read(pool, response, scale, slot)
        except (urllib3.exceptions.HTTPError, zlib.error, OSError) as error:
            self._raise_if_over()
            # Some of these errors quote what the other side sent.
            raise Unavailable(
                f"no usable response ({describe_failure(error)})", heavy=self._timed_out(thread, error)
            ) from None
        finally:
            self._in_flight.pop(thread, None)
            self._deadlines.pop(thread, None)

    def _timed_out(self, thread: int, error: Exception) -> bool:
        """Whether the API was too slow to answer. If connecting failed, it never got the request."""
        if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
            return False
        limit, _ = self._in_flight.get(thread, (math.inf, None))
        return isinstance(error, urllib3.exceptions.TimeoutError) or self._clock.monotonic() >= limit

    def _raise_if_over(self) -> None:
        if self._closed or self._deadline.passed():
            raise DeadlineExceeded("the run's deadline came first")

    def _read(
        self, pool: str, response: urllib3.BaseHTTPResponse, scale: Scale, slot: _BodySlot
    ) -> tuple[int, bytes]:
        if response.status not in (200, 204):
            body = _read_error(response)
            raise self._error(pool, response.status, response.headers, body)
        try:
            body = _read(response, scale, self.budget.limit, slot)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response.status, body

    def _error(self, pool: str, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        retry_after = parse_retry_after(headers.get("Retry-After"), self._clock.now())
        if status in (401, 403):
            return AuthenticationFailed(_authentication_remedy(status, self._tenant))
        if status == 429:
            self.quota.count_429(pool, self._clock.now())
            return RateLimited("TAP answered 429", retry_after)
        if status == 408 or status >= 500:
            return Unavailable(f"TAP answered {status}: {self._describe(body)}", retry_after, heavy=True)
        html = body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
        return RequestRejected(
            status, self._describe(body), html=html or "html" in headers.get("Content-Type", "")
        )

    def _describe(self, body: bytes) -> str:
        return describe(body, self._credentials, cut=len(body) >= _ERROR_BODY_BYTES)

    def _started(self, sock: socket.socket) -> None:
        thread = threading.get_ident()
        deadline = self._deadlines.get(thread, self._deadline)
        limit = min(self._clock.monotonic() + self._call_seconds, deadline.at_seconds)
        self._in_flight[thread] = (limit, sock)
        if self._closed:
            shut(sock)

    def _cut_overdue(self) -> None:
        """Ends calls over their limit: a socket time-out restarts with each byte, however slow they come."""
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


def _authentication_remedy(status: int, tenant: str | None) -> str:
    sentence = AUTHENTICATION_REMEDIES[status]
    if tenant is None:
        return sentence
    for_tenant = sentence.replace("TAP_PRINCIPAL", "principal").replace("TAP_SECRET", "secret")
    return f"{for_tenant} (tenant {tenant}, credentials.json)"


class _BodySlot:
    """The only slot for a large body: acquired while it is read, released when its memory is reserved."""

    def __init__(self, large_bodies: MemoryBudget) -> None:
        self._large_bodies = large_bodies
        self._release: Callable[[], None] | None = None

    def acquire(self) -> None:
        self._release = self._release or self._large_bodies.reserve(1)

    def release(self) -> None:
        if self._release:
            self._release()


def _read(response: urllib3.BaseHTTPResponse, scale: Scale, limit: int, slot: _BodySlot) -> bytes:
    """The decoded body. Raises `TooLarge` as soon as the part that was read is over `limit` by weight."""
    body, weight = io.BytesIO(), 0
    for chunk in _chunks(response):
        if body.tell():
            body.write(chunk)
        else:
            # Most bodies are one piece: BytesIO then shares its bytes instead of copying them.
            body = io.BytesIO(chunk)
            body.seek(0, io.SEEK_END)
        if body.tell() <= SMALL_BYTES:
            continue
        slot.acquire()
        weight += scale.weigh(chunk if weight else body.getvalue())
        if weight > limit:
            size = body.tell()
            body.close()
            raise TooLarge(
                f"a response that needs too much memory was rejected while it was read ({size} bytes)"
            )
    return body.getvalue()


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The decoded body in pieces. Gzip is unpacked here, at two thirds of urllib3's cost."""
    if response.headers.get("Content-Encoding") == "gzip":
        return _unpacked(response.stream(_CHUNK_BYTES, decode_content=False))
    return response.stream(_CHUNK_BYTES, decode_content=True)


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpacks gzip members; an empty body is allowed. Raises `zlib.error` if it is not gzip, `Unavailable` if
    it is truncated.
    """
    gunzip, chunk = zlib.decompressobj(_GZIP_WBITS), b""
    for chunk in chunks:
        # A member may be followed by zero bytes that fill a block.
        packed = chunk.lstrip(b"\0") if gunzip.eof else chunk
        while packed:
            if gunzip.eof:
                gunzip = zlib.decompressobj(_GZIP_WBITS)
            yield gunzip.decompress(packed, _UNPACKED_PIECE_BYTES)
            packed = gunzip.unconsumed_tail or gunzip.unused_data.lstrip(b"\0")
    if chunk and not gunzip.eof:
        raise Unavailable("the response was truncated")


def _read_error(response: urllib3.BaseHTTPResponse) -> bytes:
    """The start of an error's body; empty if it cannot be read, because the status still counts."""
    try:
        body = response.read(_ERROR_BODY_BYTES, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError):
        body = b""
    if 0 < len(body) < _ERROR_BODY_BYTES:
        response.release_conn()
    else:
        response.close()
    return body
