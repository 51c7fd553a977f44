"""Cloud Run and Pub/Sub in small: N containers of the function, fed from one queue of messages."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from tap_forensics.sandbox.cloudevents import FunctionServer, post_event
from tests.support.tenants_api import Tenant

MAIN = Path(__file__).resolve().parents[2] / "main.py"


def mount(folder: Path, tenants: Iterable[Tenant]) -> None:
    """Credentials as Cloud Run mounts them."""
    for tenant in tenants:
        (folder / tenant.name).mkdir()
        mount_one(folder, tenant.name, tenant.api.principal, tenant.api.secret)


def mount_one(folder: Path, name: str, principal: str, secret: str) -> None:
    credentials = json.dumps({"principal": principal, "secret": secret})
    (folder / name / "credentials.json").write_text(credentials, encoding="utf-8")


@dataclass
class Deliveries:
    """What came of one publication: the status of each attempt by tenant, and how long all took."""

    statuses: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0

    def ended(self) -> Counter[int]:
        return Counter(attempts[-1] for attempts in self.statuses.values())


class Fleet:
    """`containers` servers of the function, one request at a time in each, as a context manager."""

    def __init__(self, env: Mapping[str, str], containers: int) -> None:
        self._up = ExitStack()
        # A home of its own each, as containers have: gunicorn keeps a socket there.
        homes = [self._up.enter_context(TemporaryDirectory()) for _ in range(containers)]
        self.servers = [FunctionServer({**env, "HOME": home}, MAIN) for home in homes]

    def __enter__(self) -> Fleet:
        with ThreadPoolExecutor(len(self.servers)) as pool:
            starts = [pool.submit(server.__enter__) for server in self.servers]
        for server in self.servers:
            self._up.push(server.__exit__)
        for start in starts:
            start.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._up.close()

    def publish(self, names: Iterable[str], attempts: int = 2) -> Deliveries:
        """Publishes a message a tenant at once; what fails is delivered again, `attempts` times in all."""
        deliveries = Deliveries({name: [] for name in names})
        before_sleep: queue.SimpleQueue[str] = queue.SimpleQueue()
        for name in deliveries.statuses:
            before_sleep.put(name)
        open_ones = threading.Semaphore(0)
        begun = time.monotonic()

        def serve(server: FunctionServer) -> None:
            while name := before_sleep.get():
                payload = json.dumps({"tenant": name}).encode()
                status, _ = post_event(server.url, payload, timeout_seconds=60)
                deliveries.statuses[name].append(status)
                if status == 200 or len(deliveries.statuses[name]) == attempts:
                    open_ones.release()
                else:
                    before_sleep.put(name)

        with ThreadPoolExecutor(len(self.servers)) as pool:
            serving = [pool.submit(serve, server) for server in self.servers]
            for _ in deliveries.statuses:
                open_ones.acquire()
            deliveries.seconds = time.monotonic() - begun
            for _ in self.servers:
                before_sleep.put("")
        for served in serving:
            served.result()
        return deliveries

    def entries(self) -> list[dict[str, Any]]:
        """All that was logged, by all containers."""
        return [json.loads(line) for server in self.servers for line in server.log]
