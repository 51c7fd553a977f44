"""The object store. Every write has a precondition; nothing here knows what the bytes mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar

import google.auth
from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed, from_http_response
from google.auth import compute_engine
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.clock import parse_iso
from tap_forensics.errors import CollectorError, StorageFailed
from tap_forensics.storage.remedies import NO_CREDENTIALS, storage_fault

T = TypeVar("T")

_CONNECT_SECONDS = 10
_READ_SECONDS = 30
# Only what is larger is sent in several requests, and by default as one copy of up to 100 MB.
_CHUNK_BYTES = 8 * 1024 * 1024
_MIN_WAIT_SECONDS = 5
_MAX_WAIT_SECONDS = 60
# The only one that Client(…) asks.
_UNIVERSE = "googleapis.com"


@dataclass(frozen=True)
class Stored:
    """An object's bytes and the generation they were read at."""

    data: bytes
    generation: int


class Conflict(CollectorError):
    """The precondition did not hold, and what lies there is not what we wrote: `stored` (None: nothing)."""

    def __init__(self, name: str, stored: Stored | None) -> None:
        super().__init__(f"object {name} is not as it was")
        self.stored = stored


def open_client() -> Client:
    """A client with the function's own identity, or for STORAGE_EMULATOR_HOST without one.

    It goes to Google directly: HTTPS_PROXY is for TAP. Raises `StorageFailed` where there are no Google
    credentials.
    """
    # Else each client asks for the bucket itself, on a thread of its own, for traces nobody reads: a right
    # that the collector's role does not give.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    try:
        client = Client(project=None, credentials=_own_identity())
        # The library has no other way to say so: one session for the bucket, one for new tokens.
        for session in (client._http, client._http._auth_request.session):
            _without_proxy(session)
    except GoogleAuthError:
        raise StorageFailed(NO_CREDENTIALS) from None
    return client


def _own_identity() -> Any:
    """As the client itself would find it; None for an emulator, which is asked without credentials."""
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return None
    request = Request()
    _without_proxy(request.session)
    credentials, _ = google.auth.default(scopes=Client.SCOPE, request=request)
    if isinstance(credentials, compute_engine.Credentials):
        # Unasked for, it asks the metadata server by a session of its own, which would take a proxy.
        return credentials.with_universe_domain(_UNIVERSE)
    return credentials


def _without_proxy(session: Any) -> None:
    """What else `requests` takes from the environment stays: an authority for what looks into TLS."""
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


class Bucket:
    """One bucket; `remaining_seconds` tells how long the run may still wait for it; a request gets
    `min_wait_seconds` even then.

    `date`: the bucket's clock at its newest response, in whole seconds; None before the first.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        remaining_seconds: Callable[[], float],
        *,
        min_wait_seconds: float = _MIN_WAIT_SECONDS,
    ) -> None:
        self._bucket = client.bucket(name)
        self.date: datetime | None = None
        # The library's public calls do not return headers, so the hook is on its session.
        client._http.hooks["response"].append(self._note_date)
        self._remaining_seconds = remaining_seconds
        self._min_wait_seconds = min_wait_seconds
        self.name = name

    def _note_date(self, response: Any, **_: Any) -> None:
        with suppress(KeyError, TypeError, ValueError):
            self.date = parsedate_to_datetime(response.headers["Date"])

    def read(self, name: str) -> Stored | None:
        """The whole object, or None where there is none. Raises `StorageFailed`."""
        return self._download(name, None)

    def _download(self, name: str, generation: int | None) -> Stored | None:
        blob = self._bucket.blob(name, generation=generation)
        try:
            data = self._attempt("read", name, blob.download_as_bytes)
        except NotFound as error:
            if error.response is not None:
                # Its body was never read, so its socket would stay open until the garbage is collected.
                error.response.close()
            return None
        return Stored(data, int(blob.generation))

    def read_ever(self, name: str) -> Stored | None:
        """As `read`; if there is no object any more, its newest old version, if the bucket keeps them.

        A feed may delete an object seconds after it was written.
        """
        return self.read(name) or self._read_newest_version(name)

    def _read_newest_version(self, name: str) -> Stored | None:
        try:
            generations = self._attempt("list the versions of", name, partial(self._generations, name))
        except NotFound as error:
            raise StorageFailed(self._sentence("list the versions of", name, error)) from None
        return self._download(name, max(generations)) if generations else None

    def _generations(self, name: str, **limits: Any) -> list[int]:
        listed = self._bucket.list_blobs(
            prefix=name,
            end_offset=f"{name} ",  # else also the versions of every longer name
            versions="true",  # in lower case: not every emulator reads what the library makes of True
            fields="items(name,generation),nextPageToken",
            **limits,
        )
        return [int(blob.generation) for blob in listed if blob.name == name]

    def age_seconds(self, name: str, generation: int) -> float | None:
        """How long ago this generation was written, by the bucket's clock alone.

        None if the live object is another one or is gone. The `Date` header has whole seconds, so the age is
        up to a second too small, and never too large. Raises `StorageFailed`.
        """
        try:
            response = self._attempt("read the age of", name, partial(self._metadata, name))
        except NotFound:
            return None
        try:
            told = response.json()
            if int(told["generation"]) != generation:
                return None
            age = parsedate_to_datetime(response.headers["Date"]) - parse_iso(told["updated"])
        except (KeyError, TypeError, ValueError):
            raise StorageFailed(
                f"could not read the age of gs://{self.name}/{name}: no usable times"
            ) from None
        return max(age.total_seconds(), 0.0)

    def _metadata(self, name: str, *, timeout: tuple[float, float], retry: Callable[..., Any]) -> Any:
        """The response to a request for the metadata of the live object."""
        client = self._bucket.client
        url = f"{client.api_endpoint}/storage/v1{self._bucket.blob(name).path}?fields=generation,updated"

        def ask() -> Any:
            # The library's public calls do not return headers, so this request uses its session directly.
            response = client._http.get(url, timeout=timeout)
            if not response.ok:
                raise from_http_response(response)  # type: ignore[no-untyped-call]  # it ships untyped
            return response

        return retry(ask)()

    def create(self, name: str, data: bytes, content_type: str) -> int:
        """Writes an object that must not exist yet; gives its generation. Raises as `replace`."""
        return self.replace(name, data, content_type, generation=0)

    def replace(self, name: str, data: bytes, content_type: str, generation: int) -> int:
        """Writes over exactly this generation (0: none); gives the new one.

        The library asks again after a lost answer, so our own write can meet us as 412: what lies there is
        read back, and our own bytes count as success. Raises `Conflict` or `StorageFailed`; after the
        latter the write may still have landed.
        """
        blob = self._bucket.blob(name, chunk_size=_CHUNK_BYTES)
        try:
            self._attempt("write", name, partial(_upload, blob, data, content_type, generation))
        except PreconditionFailed:
            # A feed may have deleted already what this very call created.
            stored = self.read(name) if generation else self.read_ever(name)
            if stored is None or stored.data != data:
                raise Conflict(name, stored) from None
            return stored.generation
        except NotFound as error:
            raise StorageFailed(self._sentence("write", name, error)) from None
        except _SessionLost as error:
            raise StorageFailed(f"could not write gs://{self.name}/{name}: {error}") from error
        return int(blob.generation)

    def _wait_seconds(self) -> float:
        return min(max(self._remaining_seconds(), self._min_wait_seconds), _MAX_WAIT_SECONDS)

    def _retry(self, request: Callable[[], Any]) -> Callable[[], Any]:
        """Called for each request: a large upload has several, and each one finds less time left."""
        retried: Callable[[], Any] = DEFAULT_RETRY.with_timeout(self._wait_seconds())(request)
        return retried

    def _attempt(self, verb: str, name: str, call: Callable[..., T]) -> T:
        wait = self._wait_seconds()
        try:
            # One attempt that hangs must not outlast what the run has left.
            timeout = (min(_CONNECT_SECONDS, wait), min(_READ_SECONDS, wait))
            return call(timeout=timeout, retry=self._retry)
        except (NotFound, PreconditionFailed):
            raise
        except (
            GoogleAPIError,
            GoogleAuthError,
            InvalidResponse,
            DataCorruption,
            OSError,  # what requests raises is one, too
        ) as error:
            raise StorageFailed(self._sentence(verb, name, error)) from error

    def _sentence(self, verb: str, name: str, error: Exception) -> str:
        return storage_fault(f"{verb} gs://{self.name}/{name}", error)


class _SessionLost(Exception):
    """A large upload, which is sent in chunks, cannot go on from where it is."""


def _upload(blob: Any, data: bytes, content_type: str, generation: int, **limits: Any) -> None:
    """Sends the bytes, and once more from the start if the first upload session is lost.

    The precondition makes that safe: if the first upload landed after all, the second one meets a 412.
    """
    send = partial(_send, blob, data, content_type, if_generation_match=generation, **limits)
    try:
        send()
    except _SessionLost:
        send()


def _send(blob: Any, data: bytes, content_type: str, **options: Any) -> None:
    try:
        blob.upload_from_string(data, content_type, **options)
    except (GoogleAPIError, ValueError) as error:
        reason = _session_fault(error) if len(data) > _CHUNK_BYTES else None
        if reason is None:
            raise
        raise _SessionLost(reason) from error


def _session_fault(error: Exception) -> str | None:
    # The library raises it if a 308 counts fewer bytes than it sent; what requests raises is an OSError, too.
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "the bucket accepted only a part of a chunk"
    request = getattr(getattr(error, "response", None), "request", None)
    # Only chunks are sent by PUT. A 404 to the POST that opens the session means the bucket.
    if getattr(request, "method", None) != "PUT":
        return None
    code = getattr(error, "code", None)
    if code in (404, 410):
        return f"the upload session expired ({int(code)})"
    return "the bucket accepted nothing of a chunk (308)" if code == 308 else None
