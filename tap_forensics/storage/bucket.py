"""The Cloud Storage bucket: reads, and writes that all have a precondition."""

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
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPIError,
    NotFound,
    PreconditionFailed,
    from_http_response,
)
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
# Larger objects are uploaded in chunks. The library's default buffers up to 100 MB.
_CHUNK_BYTES = 8 * 1024 * 1024
_MIN_WAIT_SECONDS = 5
_MAX_WAIT_SECONDS = 60
# The only universe that Client(…) accepts without a setting.
_UNIVERSE_DOMAIN = "googleapis.com"


@dataclass(frozen=True)
class Stored:
    """An object's bytes and their generation."""

    data: bytes
    generation: int


class Conflict(CollectorError):
    """The precondition failed, and the object is not what we wrote: `stored`, or None if there is none."""

    def __init__(self, name: str, stored: Stored | None) -> None:
        super().__init__(f"object {name} has changed")
        self.stored = stored


def open_client() -> Client:
    """A client with the function's own identity, or without one for STORAGE_EMULATOR_HOST.

    It uses no proxy, because HTTPS_PROXY is for TAP. Raises `StorageFailed` if there are no Google
    credentials.
    """
    # By default each client reads the bucket's metadata on a thread, for traces that are not used. The
    # collector's role does not allow that.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    try:
        client = Client(project=None, credentials=_own_identity())
        # The library has no setting for this. One session is for the bucket, one for new tokens.
        for session in (client._http, client._http._auth_request.session):
            _without_proxy(session)
    except GoogleAuthError:
        raise StorageFailed(NO_CREDENTIALS) from None
    return client


def _own_identity() -> Any:
    """The credentials that the client would find; None for an emulator, which needs none."""
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return None
    request = Request()
    _without_proxy(request.session)
    credentials, _ = google.auth.default(scopes=Client.SCOPE, request=request)
    if isinstance(credentials, compute_engine.Credentials):
        # Without a domain it asks the metadata server by another session, which would use a proxy.
        return credentials.with_universe_domain(_UNIVERSE_DOMAIN)
    return credentials


def _without_proxy(session: Any) -> None:
    """Ignores proxies of the environment, but not the authority of a TLS inspection."""
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


class Bucket:
    """One bucket. `remaining_seconds` returns how long the run may still wait; a request may always take
    `min_wait_seconds`.

    `date`: the bucket's clock at the latest response, in whole seconds; None before the first.
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
        """The whole object, or None if there is none. Raises `StorageFailed`."""
        return self._download(name, None)

    def _download(self, name: str, generation: int | None) -> Stored | None:
        blob = self._bucket.blob(name, generation=generation)
        try:
            data = self._attempt("read", name, blob.download_as_bytes)
        except NotFound as error:
            if error.response is not None:
                # Its body was not read, so the socket would stay open until garbage collection.
                error.response.close()
            return None
        return Stored(data, int(blob.generation))

    def read_ever(self, name: str) -> Stored | None:
        """As `read`; if the object was deleted, its newest old version, if the bucket keeps them.

        A feed may delete an object seconds after it was written.
        """
        return self.read(name) or self._read_newest_version(name)

    def has_old_versions(self, name: str) -> bool:
        """Whether an object of this name was deleted or replaced, as far as the bucket keeps old versions."""
        return bool(self._versions(name))

    def _read_newest_version(self, name: str) -> Stored | None:
        generations = self._versions(name)
        return self._download(name, max(generations)) if generations else None

    def _versions(self, name: str) -> list[int]:
        try:
            return self._attempt("list the versions of", name, partial(self._generations, name))
        except NotFound as error:
            raise StorageFailed(self._describe("list the versions of", name, error)) from None

    def _generations(self, name: str, **limits: Any) -> list[int]:
        blobs = self._bucket.list_blobs(
            prefix=name,
            end_offset=f"{name} ",  # excludes the versions of longer names
            versions="true",  # lower case: not every emulator accepts how the library sends True
            fields="items(name,generation),nextPageToken",
            **limits,
        )
        return [int(blob.generation) for blob in blobs if blob.name == name]

    def age_seconds(self, name: str, generation: int) -> float | None:
        """How long ago this generation was written, by the bucket's clock.

        None if the live object is another generation or was deleted. The `Date` header has whole seconds, so
        the age is up to a second too small, and never too large. Raises `StorageFailed`.
        """
        try:
            response = self._attempt("read the age of", name, partial(self._metadata, name))
        except NotFound:
            return None
        try:
            metadata = response.json()
            if int(metadata["generation"]) != generation:
                return None
            age = parsedate_to_datetime(response.headers["Date"]) - parse_iso(metadata["updated"])
        except (KeyError, TypeError, ValueError):
            raise StorageFailed(
                f"could not read the age of gs://{self.name}/{name}: the response has no valid times"
            ) from None
        return max(age.total_seconds(), 0.0)

    def _metadata(self, name: str, *, timeout: tuple[float, float], retry: Callable[..., Any]) -> Any:
        """The response to a request for the metadata of the live object."""
        client = self._bucket.client
        url = f"{client.api_endpoint}/storage/v1{self._bucket.blob(name).path}?fields=generation,updated"

        def send() -> Any:
            # The library's public calls do not return headers, so this uses its session.
            response = client._http.get(url, timeout=timeout)
            if not response.ok:
                raise from_http_response(response)  # type: ignore[no-untyped-call]  # it ships untyped
            return response

        return retry(send)()

    def create(self, name: str, data: bytes, content_type: str) -> int:
        """Writes an object that must not exist yet; returns its generation. Raises as `replace`."""
        return self.replace(name, data, content_type, generation=0)

    def replace(self, name: str, data: bytes, content_type: str, generation: int) -> int:
        """Overwrites exactly this generation (0: no object); returns the new one.

        The library retries after a lost response, so our own earlier write can cause a 412. The object is
        then read back, and our own bytes count as success. Raises `Conflict` or `StorageFailed`; after
        `StorageFailed` the write may still have landed.
        """
        blob = self._bucket.blob(name, chunk_size=_CHUNK_BYTES)
        try:
            self._attempt("write", name, partial(_upload, blob, data, content_type, generation))
        except PreconditionFailed:
            # A feed may already have deleted what this call created.
            stored = self.read(name) if generation else self.read_ever(name)
            return _generation_if_ours(name, stored, data)
        except StorageFailed as failure:
            stored = None if generation else self._hidden_by(failure, name)
            if stored is None:
                raise
            return _generation_if_ours(name, stored, data)
        except NotFound as error:
            raise StorageFailed(self._describe("write", name, error)) from None
        except _SessionLost as error:
            raise StorageFailed(f"could not write gs://{self.name}/{name}: {error}") from error
        return int(blob.generation)

    def _hidden_by(self, failure: StorageFailed, name: str) -> Stored | None:
        """The object at the name of a forbidden `create`, if there is one and it can be read.

        Overwriting needs the right to delete, which the function does not have for evidence. So a name that
        is taken may be answered with 403 instead of 412.
        """
        if not isinstance(failure.__cause__, Forbidden):
            return None
        with suppress(StorageFailed):
            return self.read(name)
        return None

    def _wait_seconds(self) -> float:
        return min(max(self._remaining_seconds(), self._min_wait_seconds), _MAX_WAIT_SECONDS)

    def _retry(self, request: Callable[[], Any]) -> Callable[[], Any]:
        """Called for each request: a large upload has several, and less time remains for each."""
        retried: Callable[[], Any] = DEFAULT_RETRY.with_timeout(self._wait_seconds())(request)
        return retried

    def _attempt(self, verb: str, name: str, call: Callable[..., T]) -> T:
        wait = self._wait_seconds()
        try:
            # One attempt that hangs must not take longer than the run has left.
            timeout = (min(_CONNECT_SECONDS, wait), min(_READ_SECONDS, wait))
            return call(timeout=timeout, retry=self._retry)
        except (NotFound, PreconditionFailed):
            raise
        except (
            GoogleAPIError,
            GoogleAuthError,
            InvalidResponse,
            DataCorruption,
            OSError,  # includes what requests raises
        ) as error:
            raise StorageFailed(self._describe(verb, name, error)) from error

    def _describe(self, verb: str, name: str, error: Exception) -> str:
        return storage_fault(f"{verb} gs://{self.name}/{name}", error)


def _generation_if_ours(name: str, stored: Stored | None, data: bytes) -> int:
    if stored is None or stored.data != data:
        raise Conflict(name, stored) from None
    return stored.generation


class _SessionLost(Exception):
    """A large upload, which is sent in chunks, cannot be continued."""


def _upload(blob: Any, data: bytes, content_type: str, generation: int, **limits: Any) -> None:
    """Sends the bytes; starts again once if the upload session is lost.

    The precondition makes that safe: if the first upload landed after all, the second one gets a 412.
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
    # The library's ValueError: a 308 counts fewer bytes than were sent. Those of requests are OSErrors, too.
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "the bucket accepted only a part of a chunk"
    request = getattr(getattr(error, "response", None), "request", None)
    # Only chunks are sent by PUT. A 404 for the POST that opens the session means that there is no bucket.
    if getattr(request, "method", None) != "PUT":
        return None
    code = getattr(error, "code", None)
    if code in (404, 410):
        return f"the upload session expired ({int(code)})"
    return "the bucket accepted nothing of a chunk (308)" if code == 308 else None
