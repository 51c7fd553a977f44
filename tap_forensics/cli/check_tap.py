"""TAP's side of the doctor: the five-minute window that the vendor's guide tries credentials with."""

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

_QUESTION = "/v2/siem/all?format=json&sinceSeconds=300"
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
# A clock that is further off meets 400s that the run works around; from an hour on states are refused.
_SKEW_SEEN = timedelta(seconds=30)
_SKEW_REFUSED = timedelta(hours=1)


def probe_tap(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Makes one SIEM call, which the ledger in the state does not hear of. Raises nothing of urllib3's."""
    pool = connection_pool(settings, lambda _: None)
    try:
        response = pool.urlopen(
            "GET",
            urlsplit(settings.tap.api_base).path + _QUESTION,
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
        # Its text may quote a proxy's address with its password: only its kind is told.
        yield _unanswered(settings, error)
    finally:
        pool.close()


def _headers(settings: Settings) -> dict[str, str]:
    basic = urllib3.make_headers(basic_auth=f"{settings.tap.principal}:{settings.tap.secret}")
    return {**basic, "Accept": "application/json", "User-Agent": f"tap-forensics/{__version__}"}


def _answered(settings: Settings, status: int) -> Finding:
    host = escape_unprintable(settings.tap.api_base)
    if status in (200, 204):
        return ok("credentials", f"{host} took them, and answered five minutes of events (one SIEM call)")
    if status in AUTHENTICATION_REMEDIES:
        words, _, remedy = AUTHENTICATION_REMEDIES[status].partition("; ")
        return wrong("credentials", words, remedy)
    if status == 429:
        return wrong(
            "credentials",
            f"{host} answered 429: the SIEM calls of the last 24 hours are used up",
            "wait: calls come back one by one; look who else asks with this service principal",
        )
    if 300 <= status < 400:
        return wrong(
            "credentials",
            f"{host} answered {status}, a redirect, which is never followed",
            "check TAP_API_BASE, and whether a proxy or sign-in page stands in between",
        )
    if status >= 500:
        return warning("credentials", f"{host} answered {status}: the API is in trouble", "try again later")
    return wrong("credentials", f"{host} answered {status}", "check TAP_API_BASE: is this the TAP API?")


def _unanswered(settings: Settings, error: Exception) -> Finding:
    host = escape_unprintable(urlsplit(settings.tap.api_base).netloc)
    kind = type(error).__name__
    if isinstance(error, ProxyError) or "Tunnel connection failed" in str(error):
        return _proxy(error)
    if isinstance(error, NameResolutionError):
        return wrong("route", f"no DNS server knows {host}", "check TAP_API_BASE, DNS and the VPC's egress")
    if isinstance(error, SSLError):
        return wrong(
            "route",
            f"the certificate of {host} is not trusted ({kind})",
            "a proxy that looks into TLS? Let this host through untouched",
        )
    if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
        return wrong(
            "route",
            f"no route to {host} ({kind})",
            "allow HTTPS to it in firewall and VPC egress, or set HTTPS_PROXY",
        )
    return wrong("route", f"{host} took the connection and gave no answer ({kind})", "try again later")


def _proxy(error: Exception) -> Finding:
    if "407" in str(error):
        return wrong(
            "proxy",
            "the proxy of HTTPS_PROXY wants credentials (407)",
            "write them into it: http://USER:PASSWORD@HOST:PORT",
        )
    if "Tunnel connection failed" in str(error):
        return wrong("proxy", "the proxy of HTTPS_PROXY refuses the way to TAP", "allow the host there")
    return wrong(
        "proxy",
        f"the proxy of HTTPS_PROXY cannot be reached ({type(error).__name__})",
        "check its address, or name the host in NO_PROXY to go without it",
    )


def _clock_skew(date: str | None, now: datetime) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(date or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        yield warning("clock", "the API sent no Date to compare this machine's clock with")
        return
    theirs = theirs.replace(tzinfo=UTC) if theirs.tzinfo is None else theirs
    skew = now - theirs
    told = (
        f"this machine's clock is {lasting(abs(skew))} {'ahead of' if skew > timedelta() else 'behind'} TAP's"
    )
    if abs(skew) <= _SKEW_SEEN:
        yield ok("clock", f"within {lasting(_SKEW_SEEN)} of TAP's")
    elif abs(skew) < _SKEW_REFUSED:
        yield warning("clock", told, "set it by NTP; END_LAG_SECONDS covers a minute of it")
    else:
        yield wrong("clock", told, "set it by NTP")
