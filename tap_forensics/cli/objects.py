"""What lies in the bucket: names, sizes and versions, a page at a time. The function itself never lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.errors import StorageFailed
from tap_forensics.storage.remedies import storage_fault
from tap_forensics.storage.state import RUN_ID_FORMAT

EVIDENCE_STEM = "tap_forensics"
EVENTS_STEM = "tap_siem_events"
_TIMEOUT = (10, 30)
_PATIENCE_SECONDS = 60
_FIELDS = "items(name,size,updated,generation,timeDeleted),nextPageToken"
_NEVER = datetime.fromtimestamp(0, UTC)
_RUN_ID = re.compile(r"_(\d{8}_\d{6})(?:_\d{4,})?\.ndjson$")


@dataclass(frozen=True)
class ObjectInfo:
    """One object, or one version of it; `generation` names the version."""

    name: str
    size_bytes: int
    updated: datetime
    generation: int

    @property
    def run_id(self) -> str:
        """From a name of ours; empty for any other."""
        found = _RUN_ID.search(self.name)
        return found[1] if found else ""


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turns what the storage library raises into `StorageFailed`, with the remedy."""
    try:
        yield
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise StorageFailed(storage_fault(what, error)) from error


def list_objects(
    client: Client,
    bucket: str,
    prefix: str,
    *,
    start: str = "",
    most: int | None = None,
    versions: bool = False,
    delimiter: str | None = None,
) -> Iterator[ObjectInfo]:
    """In order of name, from `start` on; with a `delimiter` only names that have none after the prefix.

    Raises `StorageFailed`.
    """
    with asking(f"list gs://{bucket}/{prefix}"):
        found = client.list_blobs(
            bucket,
            prefix=prefix,
            start_offset=start or None,
            max_results=most,
            delimiter=delimiter,
            # Lower case: what the library makes of True is not what every emulator reads.
            versions="true" if versions else None,
            fields=_FIELDS,
            timeout=_TIMEOUT,
            retry=DEFAULT_RETRY.with_timeout(_PATIENCE_SECONDS),
        )
        for blob in found:
            yield ObjectInfo(
                blob.name, int(blob.size or 0), blob.updated or _NEVER, int(blob.generation or 0)
            )


def list_own(
    client: Client, bucket: str, prefix: str, stem: str, since: datetime, most: int | None = None
) -> Iterator[ObjectInfo]:
    """The objects of one feed since then, in order of name. Folders below it belong to tenants."""
    listed = list_objects(
        client, bucket, folder(prefix), start=first_name(prefix, stem, since), most=most, delimiter="/"
    )
    begins = f"{folder(prefix)}{stem}_"
    return (found for found in listed if found.run_id and found.name.startswith(begins))


def first_name(prefix: str, stem: str, since: datetime) -> str:
    """Names of ours from that moment on come at or after this one."""
    return f"{prefix}/{stem}_{since.astimezone(UTC).strftime(RUN_ID_FORMAT)}".lstrip("/")


def folder(prefix: str) -> str:
    """What all objects of a feed begin with."""
    return f"{prefix}/" if prefix else ""
