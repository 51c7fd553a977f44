"""An operator's desk: the commands in this process or as a real one, a stand-in for TAP and a real bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import urllib3
from click.testing import CliRunner, Result

from tap_forensics.cli.main import tap_forensics
from tap_forensics.config.settings import VARIABLES
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.support.settings import STATE, environment


@dataclass
class Site:
    """What a test has: `env` is the operator's environment."""

    tap: TapServer
    bucket: FakeBucket
    env: dict[str, str] = field(default_factory=dict)

    def call(self, *words: str, typed: str | None = None, **env: str) -> Result:
        """A command in this process, with nothing of the developer's own environment."""
        unset: dict[str, str | None] = dict.fromkeys([v.name for v in VARIABLES] + ["STORAGE_EMULATOR_HOST"])
        return CliRunner().invoke(tap_forensics, words, input=typed, env=unset | self.env | env)

    def call_json(self, *words: str, **env: str) -> Any:
        """What a command says in JSON."""
        result = self.call(*words, "--json", **env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return json.loads(result.stdout)

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """A command as a process of its own."""
        env = {"PATH": os.environ["PATH"], **self.env, **more.pop("env", {})}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        command = [sys.executable, "-m", "tap_forensics", *words]
        return subprocess.Popen(command, text=True, env=env, **streams)  # noqa: S603 (this Python, our words)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.bucket.get(STATE))
        return state

    def put_state(self, **fields: Any) -> None:
        self.bucket.put(STATE, json.dumps({"version": 2, **fields}, default=datetime.isoformat))

    def delivered(self) -> Counter[str]:
        """How often the evidence of each threat lies in the bucket."""
        evidence = [data for name, data in self.bucket.objects("tap-forensics/").items() if "ndjson" in name]
        lines = [json.loads(line) for data in evidence for line in data.splitlines()]
        return Counter(line["_threatId"] for line in lines if line["scope"] == "THREAT")

    def truth(self, since: datetime, until: datetime) -> dict[str, int]:
        """What shall lie there of a span: every threat with evidence, once."""
        shown = self.tap.world.threat_ids_between(since, until, now=utc_now())
        return {name: 1 for name in shown if self.tap.world.threats[name].answer == "report"}


def lease_ran_out(site: Site) -> None:
    """Waits for it. The bucket's clock tells, in whole seconds."""
    while site.call_json("status")["lease"]["live"]:
        pass


def live_lease() -> dict[str, Any]:
    now = utc_now()
    return {
        "run_id": now.strftime("%Y%m%d_%H%M%S"),
        "owner": "another",
        "seconds": 180,
        "started": now,
    }


@pytest.fixture
def site() -> Iterator[Site]:
    """A day of events, and a bucket with nothing in it."""
    now = utc_now()
    world = World(
        5,
        start=now - timedelta(days=1),
        end=now - timedelta(minutes=5),
        messages_per_hour=3,
        clicks_per_hour=1,
    )
    with TapServer(world) as tap, FakeBucket() as bucket:
        yield Site(tap, bucket, environment(tap, bucket))


@dataclass
class Gate:
    """Stands before the bucket's server: answers what that one cannot, and keeps a journal of the rest.

    `rights` are those that it says are held, `object_rights` those on names that begin so, `object_status`
    the status of that answer; `policy` has the members of each role, or is a status; `refuses` is a status
    for every request.
    """

    url: str
    asked: list[str]
    rights: list[str] | None = None
    object_rights: dict[str, list[str]] = field(default_factory=dict)
    object_status: int = 200
    policy: dict[str, list[str]] | int | None = None
    refuses: int | None = None

    def answer(self, path: str) -> tuple[int, dict[str, Any]] | None:
        """Status and JSON; None if the bucket's server is to answer."""
        if self.refuses:
            return self.refuses, {}
        if "/iam/testPermissions" in path and self.rights is not None:
            return self._held(path, self.rights)
        if "/iam?" not in path or self.policy is None:
            return None
        if isinstance(self.policy, int):
            return self.policy, {}
        bindings = [{"role": role, "members": members} for role, members in self.policy.items()]
        return 200, {"kind": "storage#policy", "version": 3, "bindings": bindings}

    def _held(self, path: str, rights: list[str]) -> tuple[int, dict[str, Any]]:
        """Which of some permissions are held on the bucket or on an object."""
        url = urlsplit(path)
        name = unquote(url.path.partition("/o/")[2])
        held = [*rights]
        for start, on_objects in self.object_rights.items():
            held += on_objects if name.startswith(start) else []
        permissions = [right for right in parse_qs(url.query)["permissions"] if right in held]
        return self.object_status if name else 200, {"permissions": permissions}


@contextmanager
def gate_before(bucket: FakeBucket) -> Iterator[Gate]:

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Silent."""

        def _pass_on(self) -> None:
            gate.asked.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if own := gate.answer(self.path):
                self._answer(own[0], json.dumps(own[1]).encode(), "application/json")
            else:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                got = onward.request(self.command, bucket.url + self.path, body=body, headers=headers)
                self._answer(got.status, got.data, got.headers.get("Content-Type", ""), dict(got.headers))

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815 - http.server's names

        def _answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                if name.lower().startswith("x-goog"):
                    self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gate = Gate(f"http://127.0.0.1:{server.server_port}", [])
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with urllib3.PoolManager(retries=False, timeout=30) as onward:
        try:
            yield gate
        finally:
            server.shutdown()
            server.server_close()
