"""One stand-in for TAP that knows many tenants: who asks is told by the credentials of each request."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType

from tap_forensics.sandbox.api import TapApi
from tap_forensics.sandbox.faults import FaultPlan
from tap_forensics.sandbox.http_messages import Call, Request, Response
from tap_forensics.sandbox.http_server import Handlers, WireServer
from tap_forensics.sandbox.quota import RollingQuota
from tap_forensics.sandbox.routes import POOLS
from tap_forensics.sandbox.tap_api import utc_now
from tap_forensics.sandbox.world import World

_THREATS = 3


@dataclass
class Tenant:
    """A tenant with a world and credentials that no other has."""

    name: str
    world: World
    api: TapApi = field(init=False)

    def __post_init__(self) -> None:
        quotas = {pool: RollingQuota(1800) for pool in POOLS}
        self.api = TapApi(self.world, f"principal-of-{self.name}", f"secret/{self.name}+", utc_now, quotas)

    @property
    def authorization(self) -> str:
        pair = base64.b64encode(f"{self.api.principal}:{self.api.secret}".encode()).decode()
        return f"Basic {pair}"

    def asks(self, request: Request) -> bool:
        return request.headers.get("authorization") == self.authorization


def make_tenants(names: Iterable[str], now: datetime) -> dict[str, Tenant]:
    return {
        name: Tenant(name, World.from_threats(_THREATS, now=now, report_bytes=600, seed=seed))
        for seed, name in enumerate(names, start=1)
    }


@dataclass(frozen=True)
class Asked:
    """One request: who asked by its credentials (None: nobody known), for what threat, on what connection."""

    tenant: str | None
    threat_id: str | None
    connection: int


class TenantsApi:
    """The stand-in on loopback, as a context manager; `journal` is what was asked, in order."""

    def __init__(self, tenants: dict[str, Tenant]) -> None:
        self._by_authorization = {tenant.authorization: tenant for tenant in tenants.values()}
        self.faults = FaultPlan()
        self.journal: list[Asked] = []
        # A thread serves one connection; kept, so that its number is not given to another.
        self._connections: dict[int, threading.Thread] = {}
        self._wire = WireServer(
            0,
            Handlers(self._answer, self._begin, lambda: None, lambda *_: Response(404)),
            self.faults,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._wire.server_port}"

    def __enter__(self) -> TenantsApi:
        threading.Thread(target=self._wire.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.stop()

    def _answer(self, request: Request) -> Response:
        known = self._by_authorization.get(request.headers.get("authorization", ""))
        return known.api.answer(request) if known else Response(401, b"Unauthorized")

    def _begin(self, request: Request) -> Call:
        thread = threading.current_thread()
        self._connections[id(thread)] = thread
        known = self._by_authorization.get(request.headers.get("authorization", ""))
        asked = Asked(known.name if known else None, request.query.get("threatId"), id(thread))
        self.journal.append(asked)
        return Call(utc_now(), request.method, request.path, request.query, {}, 0)
