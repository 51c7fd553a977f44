"""TAP's part of the health check: the five-minute request that the vendor's guide tries credentials with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)
from urllib3.util import Timeout

from tap_forensics import __version__
from tap_forensics.cli.diagnosis import Finding, ok, warning, wrong
from tap_forensics.cli.terminal import lasting
from tap_forensics.clock import Clock
from tap_forensics.config.settings import Settings
from tap_forensics.log import escape_unprintable
from tap_forensics.tap.client import AUTHENTICATION_REMEDIES
from tap_forensics.tap.connection import connection_pool

_REQUEST = "/v2/siem/all?format=json&sinceSeconds=300"
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
# A clock that is further off causes 400s, which a run copes with; from an hour on it rejects states.
_SKEW_NOTED = timedelta(seconds=30)
_SKEW_REFUSED = timedelta(hours=1)


def check_tap(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Makes one SIEM call, which the quota in the state does not count. Raises no error of urllib3."""
    pool = connection_pool(settings, lambda _: None)
    try:
        response = pool.urlopen(
            "GET",
            urlsplit(settings.tap.api_base).path + _REQUEST,
            headers=_headers(settings),
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        )
        now = clock.now()
        yield _answered(settings, response.status)
        yield from _clock_skew(response.headers.get("Date"), now)
        response.close()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # Its text may contain the proxy's address with its password, so only its type is shown.
        yield _unanswered(settings, error)
    finally:
        pool.close()


def _headers(settings: Settings) -> dict[str, str]:
    basic = urllib3.make_headers(basic_auth=f"{settings.tap.principal}:{settings.tap.secret}")
    return {**basic, "Accept": "application/json", "User-Agent": f"tap-forensics/{__version__}"}


def _answered(settings: Settings, status: int) -> Finding:
    api = escape_unprintable(settings.tap.api_base)
    if status in (200, 204):
        return ok(
            "credentials", f"accepted by {api}, which answered for five minutes of events (one SIEM call)"
        )
    if status in AUTHENTICATION_REMEDIES:
        words, _, remedy = AUTHENTICATION_REMEDIES[status].partition("; ")
        return wrong("credentials", words, remedy)
    if status == 429:
        return wrong(
            "credentials",
            f"{api} answered 429: the SIEM calls of the last 24 hours are used up",
            "wait: calls come back one by one; check who else uses this service principal",
        )
    if 300 <= status < 400:
        return wrong(
            "credentials",
            f"{api} answered {status}, a redirect, which is never followed",
            "check TAP_API_BASE, and whether a proxy or a sign-in page is in between",
        )
    if status >= 500:
        return warning("credentials", f"{api} answered {status}: the API is in trouble", "try again later")
    return wrong("credentials", f"{api} answered {status}", "check TAP_API_BASE: is this the TAP API?")


def _unanswered(settings: Settings, error: Exception) -> Finding:
    host = escape_unprintable(urlsplit(settings.tap.api_base).netloc)
    kind = type(error).__name__
    if isinstance(error, ProxyError) or "Tunnel connection failed" in str(error):
        return _proxy(error)
    if isinstance(error, NameResolutionError):
        return wrong("route", f"{host} has no address in DNS", "check TAP_API_BASE, DNS and the VPC's egress")
    if isinstance(error, SSLError):
        return wrong(
            "route",
            f"the certificate of {host} is not trusted ({kind})",
            "if a proxy inspects TLS, exempt this host",
        )
    if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
        return wrong(
            "route",
            f"no route to {host} ({kind})",
            "allow HTTPS to it in firewall and VPC egress, or set HTTPS_PROXY",
        )
    return wrong("route", f"{host} accepted the connection but did not answer ({kind})", "try again later")


def _proxy(error: Exception) -> Finding:
    if "407" in str(error):
        return wrong(
            "proxy",
            "the proxy in HTTPS_PROXY requires credentials (407)",
            "add them to it: http://USER:PASSWORD@HOST:PORT",
        )
    if "Tunnel connection failed" in str(error):
        return wrong("proxy", "the proxy in HTTPS_PROXY refuses connections to TAP", "allow the host there")
    return wrong(
        "proxy",
        f"the proxy in HTTPS_PROXY cannot be reached ({type(error).__name__})",
        "check its address, or add the host to NO_PROXY to connect without it",
    )


def _clock_skew(date: str | None, now: datetime) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(date or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        yield warning("clock", "the API sent no Date header, so this machine's clock was not checked")
        return
    theirs = theirs.replace(tzinfo=UTC) if theirs.tzinfo is None else theirs
    skew = now - theirs
    words = (
        f"this machine's clock is {lasting(abs(skew))} {'ahead of' if skew > timedelta() else 'behind'} TAP's"
    )
    if abs(skew) <= _SKEW_NOTED:
        yield ok("clock", f"within {lasting(_SKEW_NOTED)} of TAP's")
    elif abs(skew) < _SKEW_REFUSED:
        yield warning("clock", words, "synchronize it (NTP); END_LAG_SECONDS covers a minute")
    else:
        yield wrong("clock", words, "synchronize it (NTP)")
