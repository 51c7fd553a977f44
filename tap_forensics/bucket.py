"""The object store. Every write has a precondition; nothing here knows what the bytes mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import google.auth
from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth import compute_engine
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.errors import CollectorError, StorageFailed
from tap_forensics.storage_errors import NO_CREDENTIALS, storage_fault

T = TypeVar("T")

_CONNECT_SECONDS = 10
_READ_SECONDS = 30
# Only what is larger is sent in several requests, and by default as one copy of up to 100 MB.
_CHUNK_BYTES = 8 * 1024 * 1024
_LEAST_PATIENCE_SECONDS = 5
_MOST_PATIENCE_SECONDS = 60
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
    """One bucket; `remaining_seconds` tells how long the run may still wait for it."""

    def __init__(self, client: Client, name: str, remaining_seconds: Callable[[], float]) -> None:
        self._bucket = client.bucket(name)
        self._remaining_seconds = remaining_seconds
        self.name = name

    def read(self, name: str) -> Stored | None:
        """The whole object, or None where there is none. Raises `StorageFailed`."""
        blob = self._bucket.blob(name)
        try:
            data = self._attempt("read", name, blob.download_as_bytes)
        except NotFound as error:
            if error.response is not None:
                # Its body was never read, so its socket would stay open until the garbage is collected.
                error.response.close()
            return None
        return Stored(data, int(blob.generation))

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

        def upload(**limits: Any) -> None:
            blob.upload_from_string(data, content_type, if_generation_match=generation, **limits)

        try:
            self._attempt("write", name, upload)
        except PreconditionFailed:
            stored = self.read(name)
            if stored is None or stored.data != data:
                raise Conflict(name, stored) from None
            return stored.generation
        except NotFound as error:
            raise StorageFailed(self._sentence("write", name, error)) from None
        return int(blob.generation)

    def _attempt(self, verb: str, name: str, call: Callable[..., T]) -> T:
        patience = min(max(self._remaining_seconds(), _LEAST_PATIENCE_SECONDS), _MOST_PATIENCE_SECONDS)
        try:
            # One attempt that hangs must not outlast what the run has left.
            timeout = (min(_CONNECT_SECONDS, patience), min(_READ_SECONDS, patience))
            return call(timeout=timeout, retry=DEFAULT_RETRY.with_timeout(patience))
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
