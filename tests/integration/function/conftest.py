"""The function as it is deployed: main.py under functions-framework, met over HTTP by real CloudEvents.

Whatever a test does, nothing that the function says or writes may hold the secret: checked at its end.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
import urllib3

from tap_forensics.sandbox.cloudevents import FunctionServer, event_body, event_headers
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.support.settings import PREFIX, STATE, environment

PRINCIPAL = "principal-of-the-tests"
# Its characters look different in a URL, in JSON and in Base64.
SECRET = 'open/sesame+"0192837465"'  # noqa: S105 (of the stand-in, and of nothing else)

Answer = tuple[int, str]


class Deployment:
    """One bucket, one API, and the servers of the function that a test starts."""

    def __init__(self, tap: TapServer, bucket: FakeBucket) -> None:
        self.tap, self.bucket = tap, bucket
        self._servers: list[FunctionServer] = []
        self._answers: list[Answer] = []

    def env(self, **more: str) -> dict[str, str]:
        return environment(self.tap, self.bucket, K_SERVICE="tap-forensics-collector", **more)

    @contextmanager
    def serving(self, env: Mapping[str, str] | None = None, **more: str) -> Iterator[FunctionServer]:
        with FunctionServer(self.env(**more) if env is None else env) as server:
            self._servers.append(server)
            yield server

    def post(self, server: FunctionServer, **headers: str) -> Answer:
        """One event; `headers` with _ for - beside those that Eventarc sends."""
        name = uuid.uuid4().hex
        sent = event_headers(name) | {key.replace("_", "-"): value for key, value in headers.items()}
        body = event_body(b"{}", name, datetime.now(UTC))
        with urllib3.PoolManager(retries=False, timeout=60) as pool:
            response = pool.request("POST", server.url, body=body, headers=sent)
            answer = (response.status, response.data.decode())
        self._answers.append(answer)
        return answer

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.bucket.get(STATE))
        return state

    def delivered(self) -> list[str]:
        """The ids of all THREAT reports in the bucket, one for each time that one lies there."""
        evidence = [data for name, data in self.bucket.objects(PREFIX).items() if name.endswith(".ndjson")]
        lines = [json.loads(line) for data in evidence for line in data.removesuffix(b"\n").split(b"\n")]
        return sorted(line["_threatId"] for line in lines if line["scope"] == "THREAT")

    def expected(self) -> list[str]:
        return sorted(self.tap.world.threats)

    def all_output(self) -> str:
        """All lines of all servers, all answers, all objects and their names."""
        output = [line for server in self._servers for line in server.log]
        output += [body for _, body in self._answers]
        written = [f"{name} {data.decode(errors='replace')}" for name, data in self.bucket.objects().items()]
        return "\n".join(output + written)


def entries(server: FunctionServer) -> list[dict[str, Any]]:
    """What the server logged; a line that is no JSON object fails."""
    found = [json.loads(line) for line in server.log]
    assert all(isinstance(entry, dict) for entry in found)
    return found


def messages(server: FunctionServer, severity: str) -> list[str]:
    """The messages of one severity."""
    return [entry["message"] for entry in entries(server) if entry["severity"] == severity]


def outcomes(server: FunctionServer) -> list[str]:
    """How each run ended, by its last line."""
    return [entry["run"]["outcome"] for entry in entries(server) if "run" in entry]


def disguises(secret: str) -> set[str]:
    """Principal and secret as they might show: plain, for a URL or JSON, in hex or Base64, and as a pair."""
    found = set()
    for text in (PRINCIPAL, secret, f"{PRINCIPAL}:{secret}"):
        packed = base64.b64encode(text.encode()).decode().rstrip("=")
        found |= {text, quote(text), quote(text, safe=""), json.dumps(text)[1:-1], text.encode().hex()}
        found |= {packed, packed[:12], packed[4:20], packed.replace("+", "-").replace("/", "_")}
    return found


@pytest.fixture
def world() -> World:
    return World.from_threats(6, now=utc_now(), campaigns=1, threats_per_campaign=3, report_bytes=2000)


@pytest.fixture
def deployment(world: World) -> Iterator[Deployment]:
    with TapServer(world, principal=PRINCIPAL, secret=SECRET) as tap, FakeBucket("function-tests") as bucket:
        deployment = Deployment(tap, bucket)
        yield deployment
        output = deployment.all_output()
        assert not [found for found in disguises(SECRET) if found in output]
