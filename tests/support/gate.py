"""A gate between a storage client and its server: it answers some requests itself, or loses a response."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from requests import ConnectionError, PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.storage.bucket import Bucket
from tests.support.lab_bucket import Through


@dataclass(frozen=True)
class Arrived:
    """A request at the gate: `forward` sends it to the server, `reply` answers without it."""

    request: PreparedRequest
    forward: Callable[[], Response]

    def reply(self, status: int, body: bytes | None = None, **headers: str) -> Response:
        error = {"error": {"code": status, "message": "told by the gate"}}
        content = io.BytesIO(json.dumps(error).encode() if body is None else body)
        raw = HTTPResponse(content, headers, status, preload_content=False)
        return HTTPAdapter().build_response(self.request, raw)


Rule = Callable[[Arrived], Response]


class Gate(Through):
    """Applies the next rule for a request's method, and forwards what has no rule left."""

    def __init__(self, **rules: list[Rule]) -> None:
        super().__init__()
        self.inner = HTTPAdapter()
        self._rules = rules
        self.asked: list[str] = []
        self.answered: list[int] = []

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        method = str(request.method)
        self.asked.append(method)
        rules = self._rules.get(method)
        rule = rules.pop(0) if rules else passed
        forward = super().send
        response = rule(Arrived(request, lambda: forward(request, *args, **kwargs)))
        self.answered.append(response.status_code)
        return response


def passed(arrived: Arrived) -> Response:
    return arrived.forward()


def lost(arrived: Arrived) -> Response:
    """The server did it, and the response never came."""
    arrived.forward()
    raise ConnectionError("lost by the gate")


def answered(status: int, body: bytes | None = None, **headers: str) -> Rule:
    """The server never sees the request."""
    return lambda arrived: arrived.reply(status, body, **headers)


def precondition(fake: FakeBucket, name: str, generation: int) -> Rule:
    """412 unless the object is at this generation, as Cloud Storage answers; fake-gcs-server does not look
    when a resumable upload begins.
    """

    def rule(arrived: Arrived) -> Response:
        assert f"ifGenerationMatch={generation}" in str(arrived.request.url)
        return arrived.forward() if fake.generation(name) == generation else arrived.reply(412)

    return rule


def once_a_second() -> Rule:
    """429 to each request that comes within a second of the last one it let pass."""
    last = [float("-inf")]

    def rule(arrived: Arrived) -> Response:
        if time.monotonic() - last[0] < 1:
            return arrived.reply(429)
        response = arrived.forward()
        last[0] = time.monotonic()
        return response

    return rule


def behind(
    gate: Through, fake: FakeBucket, remaining_seconds: Callable[[], float] = lambda: 30.0, **options: float
) -> Bucket:
    """The bucket, asked through the gate; `options` as of `Bucket`."""
    client = fake.client()
    client._http.mount("http://", gate)
    return Bucket(client, fake.name, remaining_seconds, **options)
