"""A strict stand-in for the TAP API over HTTP, on loopback, in this process or in a separate one.

Separate process: `python -m tap_forensics.sandbox.tap_api --threats 500` prints its URL on the first line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Any, TypedDict, Unpack

from tap_forensics.sandbox import routes
from tap_forensics.sandbox.api import TapApi
from tap_forensics.sandbox.faults import FaultPlan, add_from_json
from tap_forensics.sandbox.http_messages import Call, Request, Response
from tap_forensics.sandbox.http_server import Handlers, WireServer
from tap_forensics.sandbox.quota import RollingQuota
from tap_forensics.sandbox.world import World


def utc_now() -> datetime:
    return datetime.now(UTC)


class TenantOptions(TypedDict, total=False):
    """The tenant's credentials and limits. Default: the demo's, 1800 SIEM calls, no forensics limit.

    With `shared_threat_pool`, calls by `threatId` with and without the campaign's forensics count together,
    up to `forensics_limit`.
    """

    principal: str
    secret: str
    siem_limit: int | None
    forensics_limit: int | None
    threat_forensics_limit: int | None
    campaign_forensics_limit: int | None
    shared_threat_pool: bool


def quotas_for(tenant: TenantOptions) -> dict[str, RollingQuota]:
    """One quota per pool of `routes.POOLS`."""
    siem_limit = tenant.get("siem_limit", 1800)
    forensics = RollingQuota(tenant.get("forensics_limit"))
    shared = tenant.get("shared_threat_pool", False)
    return {
        "siem": RollingQuota(siem_limit),
        "clicks_permitted": RollingQuota(siem_limit),
        "forensics": forensics,
        "threat_forensics": forensics if shared else RollingQuota(tenant.get("threat_forensics_limit")),
        "campaign_forensics": RollingQuota(tenant.get("campaign_forensics_limit")),
    }


class TapServer(TapApi):
    """The API on a port of 127.0.0.1, as a context manager.

    The fields of `TapApi` (`clock`, `gzip`, `retry_after`, `quotas` …) and `latency_seconds` may be changed
    while the server runs. The limits are calls per rolling 24 hours; None means no limit. Readers of the
    vendor's table disagree about the Forensics limits. Leaving the context without an error raises
    AssertionError if a planned fault has too few hits. `faults.clear()` prevents this.
    """

    def __init__(
        self,
        world: World,
        *,
        port: int = 0,
        clock: Callable[[], datetime] = utc_now,
        latency_seconds: float = 0.0,
        **tenant: Unpack[TenantOptions],
    ) -> None:
        principal, secret = tenant.get("principal", "demo-principal"), tenant.get("secret", "demo-secret")
        super().__init__(world, principal, secret, clock, quotas_for(tenant))
        self.faults = FaultPlan()
        self._calls: list[Call] = []
        self._in_flight = 0
        self._journal = threading.Lock()
        self._wire = WireServer(
            port,
            Handlers(self._dated, self._begin, self._end, self._control),
            self.faults,
        )
        self._wire.latency_seconds = latency_seconds

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._wire.server_port}"

    @property
    def latency_seconds(self) -> float:
        """Extra delay before each response starts."""
        return self._wire.latency_seconds

    @latency_seconds.setter
    def latency_seconds(self, seconds: float) -> None:
        self._wire.latency_seconds = seconds

    @property
    def calls(self) -> list[Call]:
        """The journal so far, in order of arrival."""
        with self._journal:
            return list(self._calls)

    def calls_to(self, path: str) -> list[Call]:
        """Calls to `path`, or to every path below it if it ends with a slash."""
        return [call for call in self.calls if routes.matches(path, call.path)]

    def calls_in(self, pool: str) -> list[Call]:
        """Calls in a pool of `routes.POOLS`, refused ones too. `asked_id` is what each was about."""
        return [call for call in self.calls if call.pool == pool]

    def forget_calls(self) -> None:
        with self._journal:
            self._calls.clear()

    def reset_quota(self) -> None:
        for quota in self.quotas.values():
            quota.reset()

    def start(self) -> None:
        """Serves in a thread. The port is already open, so the first request cannot be too early."""
        threading.Thread(
            target=self._wire.serve_forever, args=(0.02,), name="tap stand-in", daemon=True
        ).start()

    def stop(self) -> None:
        self._wire.stop()

    def __enter__(self) -> TapServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            self.faults.assert_all_met()

    def _dated(self, request: Request) -> Response:
        """The response with a `Date` header (RFC 9110) from the API's own clock."""
        response = self.answer(request)
        date = format_datetime(self.clock(), usegmt=True)
        return dataclasses.replace(response, headers={"Date": date, **response.headers})

    def _begin(self, request: Request) -> Call:
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        with self._journal:
            self._in_flight += 1
            call = Call(self.clock(), request.method, request.path, request.query, headers, self._in_flight)
            self._calls.append(call)
        return call

    def _end(self) -> None:
        with self._journal:
            self._in_flight -= 1

    def _control(self, request: Request, body: bytes) -> Response:
        """For tests in another process: plan, count or clear faults, read the journal, reset quotas."""
        asked = f"{request.method} {request.path}"
        if asked == "GET /_sandbox/calls":
            return _as_json([dataclasses.asdict(call) for call in self.calls])
        if asked == "GET /_sandbox/faults":
            return _as_json(
                [{"name": n, "met": met, "times": times} for n, met, times in self.faults.counts()]
            )
        if asked == "POST /_sandbox/faults":
            try:
                add_from_json(self.faults, json.loads(body))
            except (ValueError, KeyError, TypeError) as error:
                return Response(400, f"not a fault: {error!r}".encode())
        elif asked == "DELETE /_sandbox/faults":
            self.faults.clear()
        elif asked == "POST /_sandbox/quota/reset":
            self.reset_quota()
        else:
            return Response(404)
        return Response(204)


def _as_json(value: Any) -> Response:
    return Response(200, json.dumps(value, default=str).encode(), {"Content-Type": "application/json"})


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m tap_forensics.sandbox.tap_api", description=__doc__)
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--threats", type=int, help="exactly so many threats in the last hour")
    options.add_argument("--hours", type=float, default=24, help="without --threats: hours of seeded history")
    options.add_argument("--campaigns", type=int, default=0)
    options.add_argument("--threats-per-campaign", type=int, default=12)
    options.add_argument("--report-bytes", type=int, default=40_000)
    options.add_argument("--campaign-report-bytes", type=int, default=400_000)
    options.add_argument("--latency-seconds", type=float, default=0.0)
    options.add_argument("--siem-limit", type=int, help="calls per rolling 24 h; default none")
    options.add_argument("--forensics-limit", type=int, help="calls by threatId with campaign forensics")
    options.add_argument("--threat-forensics-limit", type=int, help="calls by threatId alone")
    options.add_argument("--campaign-forensics-limit", type=int, help="calls by campaignId")
    options.add_argument("--shared-threat-pool", action="store_true", help="one limit for both by threatId")
    options.add_argument("--no-gzip", action="store_true")
    return options


def world_for(options: argparse.Namespace, now: datetime) -> World:
    if options.threats is None:
        start = now - timedelta(hours=options.hours)
        return World(options.seed, start=start, end=now, campaigns=options.campaigns)
    return World.from_threats(
        options.threats,
        now=now,
        campaigns=options.campaigns,
        threats_per_campaign=options.threats_per_campaign,
        report_bytes=options.report_bytes,
        campaign_report_bytes=options.campaign_report_bytes,
        seed=options.seed,
    )


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT."""
    options = parser().parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = TapServer(
        world_for(options, utc_now()),
        port=options.port,
        latency_seconds=options.latency_seconds,
        siem_limit=options.siem_limit,
        forensics_limit=options.forensics_limit,
        threat_forensics_limit=options.threat_forensics_limit,
        campaign_forensics_limit=options.campaign_forensics_limit,
        shared_threat_pool=options.shared_threat_pool,
    )
    server.gzip = not options.no_gzip
    server.pack_reports()
    server.start()
    print(server.url, flush=True)
    ended.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
