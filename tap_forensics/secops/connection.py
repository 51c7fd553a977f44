"""One instance of SecOps through Google's client: bounded in time and size, failures as sentences."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import google.auth
import msgspec
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from secops.chronicle.client import ChronicleClient
from secops.exceptions import SecOpsError
from urllib3.exceptions import HTTPError

from tap_forensics.clock import Clock, Deadline
from tap_forensics.secops.failures import (
    Question,
    no_credentials,
    refused,
    too_large,
    unanswered,
    unexpected,
)

T = TypeVar("T")

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_MAX_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Instance:
    """As SecOps shows it under Settings, SIEM Settings, Profile. `emulator`: the address of a server on
    loopback that takes Google's place, without credentials.
    """

    customer_id: str
    project_id: str
    region: str
    emulator: str | None = None


@dataclass(frozen=True)
class Limits:
    """Seconds for a connection, for the next bytes, and for one whole body."""

    connect_seconds: float = 10
    read_seconds: float = 90
    body_seconds: float = 180


@dataclass(frozen=True)
class Answer:
    """The part of a response of requests that the client reads."""

    status_code: int
    body: bytes
    headers: dict[str, str]

    @property
    def text(self) -> str:
        """The client quotes this in its errors. Evidence may be in it, so it is empty."""
        return ""

    def json(self) -> Any:
        """Raises ValueError."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("nested too deep") from None


class Transport:
    """What the client takes as its session."""

    def __init__(self, session: Any, clock: Clock, limits: Limits, emulator: str | None) -> None:
        self.headers = session.headers
        self.question = Question("ask SecOps")
        self._session = session
        self._clock = clock
        self._limits = limits
        self._emulator = emulator

    def request(self, method: str, url: str, **options: Any) -> Answer:
        """Raises `SecopsFailed`."""
        host = urlsplit(url).netloc
        # The client sets no time-out for most requests.
        options |= {"timeout": (self._limits.connect_seconds, self._limits.read_seconds)}
        options |= {"allow_redirects": False, "stream": True}
        # Google's session asks again after a 401 and forgets the first response.
        received: list[requests.Response] = []
        options |= {"hooks": {"response": lambda response, **_: received.append(response)}}
        try:
            return self._answer(self._session.request(method, self._address(url), **options))
        except (GoogleAuthError, requests.RequestException, HTTPError, OSError) as error:
            raise unanswered(error, self.question, host) from None
        finally:
            for response in received:
                response.close()

    def _answer(self, response: requests.Response) -> Answer:
        if response.status_code != 200:
            raise refused(response.status_code, self.question)
        deadline = Deadline.after(self._clock, self._limits.body_seconds)
        return Answer(200, self._body(response, deadline), dict(response.headers))

    def _address(self, url: str) -> str:
        if self._emulator is None:
            return url
        parts = urlsplit(url)
        return f"{self._emulator}{parts.path}{'?' + parts.query if parts.query else ''}"

    def _body(self, response: requests.Response, deadline: Deadline) -> bytes:
        """Reads what is there, so that a slow sender is noticed."""
        body = bytearray()
        while part := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            body += part
            if len(body) > _MAX_BYTES:
                raise too_large(self.question)
            if deadline.passed():
                raise TimeoutError
        return bytes(body)


class Secops:
    """Asks one question after the other. `client` is Google's."""

    def __init__(self, client: Any, transport: Transport) -> None:
        self.client = client
        self._transport = transport

    def ask(self, question: Question, call: Callable[[], Any], kind: type[T]) -> T:
        """What `call` returns, as `kind`. Raises `SecopsFailed`."""
        self._transport.question = question
        try:
            return msgspec.convert(call(), type=kind)
        except (SecOpsError, msgspec.ValidationError, AttributeError, TypeError):
            # The client expects an object in some places where it has not looked.
            raise unexpected(question) from None


@contextmanager
def connect(instance: Instance, clock: Clock, limits: Limits | None = None) -> Iterator[Secops]:
    """Uses your own Google identity. Raises `SecopsFailed` if there is none."""
    with requests.Session() if instance.emulator else _authorized_session() as session:
        _without_proxy(session)
        yield _secops(session, instance, clock, limits)


def _secops(session: Any, instance: Instance, clock: Clock, limits: Limits | None) -> Secops:
    transport = Transport(session, clock, limits or Limits(), instance.emulator)
    client = ChronicleClient(
        project_id=instance.project_id,
        customer_id=instance.customer_id,
        region=instance.region,
        session=transport,
    )
    return Secops(client, transport)


def _authorized_session() -> Any:
    request = Request()
    _without_proxy(request.session)
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES, request=request)
    except (GoogleAuthError, OSError):
        raise no_credentials() from None
    session: Any = AuthorizedSession
    return session(credentials, auth_request=request)


def _without_proxy(session: Any) -> None:
    """As for the bucket: HTTPS_PROXY is for TAP."""
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
