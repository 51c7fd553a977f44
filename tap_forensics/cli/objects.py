"""Objects in the bucket: names, sizes and versions, page by page. The function itself never lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.config.settings import Settings
from tap_forensics.errors import StorageFailed
from tap_forensics.storage.remedies import storage_fault
from tap_forensics.storage.state import RUN_ID_FORMAT

_TIMEOUT = (10, 30)
_PATIENCE_SECONDS = 60
_FIELDS = "items(name,size,updated,generation,timeDeleted),nextPageToken"
_NEVER = datetime.fromtimestamp(0, UTC)
_RUN_ID = re.compile(r"_(\d{8}_\d{6})(?:_(\d{4,}))?\.ndjson$", re.ASCII)


@dataclass(frozen=True)
class ObjectInfo:
    """One object, or one version of it, which `generation` names. `noncurrent`: deleted or replaced."""

    name: str
    size_bytes: int
    updated: datetime
    generation: int
    noncurrent: bool = False

    @property
    def run_id(self) -> str:
        """Empty if the name is not one of the function's."""
        found = _RUN_ID.search(self.name)
        return found[1] if found else ""

    @property
    def number(self) -> int:
        """The object's number in its run; 0 if the name is not one of the function's."""
        found = _RUN_ID.search(self.name)
        return int(found[2] or 1) if found else 0


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns the errors of the storage library into `StorageFailed`, with the remedy."""
    try:
        yield
    except (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, OSError) as error:
        raise StorageFailed(storage_fault(what, error)) from error


@dataclass(frozen=True)
class Listing:
    """Which objects to list: from `start` on, at most `limit`; with a `delimiter` only names that have none
    after the prefix.
    """

    prefix: str
    start: str = ""
    limit: int | None = None
    versions: bool = False
    delimiter: str | None = None


@dataclass(frozen=True)
class Feed:
    """What one SecOps feed reads: objects below `prefix` whose names begin with `stem`."""

    prefix: str
    stem: str

    @property
    def folder(self) -> str:
        """The beginning of all its names."""
        return f"{self.prefix}/" if self.prefix else ""

    def first_name(self, since: datetime) -> str:
        """The function's names from that moment on sort at or after this one."""
        return f"{self.folder}{self.stem}_{since.astimezone(UTC).strftime(RUN_ID_FORMAT)}"


def evidence_feed(settings: Settings) -> Feed:
    return Feed(settings.bucket.prefix, "tap_forensics")


def feeds(settings: Settings) -> list[Feed]:
    """The evidence, and the events and summaries if their prefixes are set."""
    others = (
        (settings.events.prefix, "tap_siem_events"),
        (settings.summaries.prefix, "tap_threat_summaries"),
    )
    return [evidence_feed(settings), *(Feed(prefix, stem) for prefix, stem in others if prefix is not None)]


def list_objects(client: Client, bucket: str, listing: Listing) -> Iterator[ObjectInfo]:
    """In order of name. Raises `StorageFailed`."""
    with storage_errors(f"list gs://{bucket}/{listing.prefix}"):
        found = client.list_blobs(
            bucket,
            prefix=listing.prefix,
            start_offset=listing.start or None,
            max_results=listing.limit,
            delimiter=listing.delimiter,
            # Lower case: not every emulator understands what the library makes of True.
            versions="true" if listing.versions else None,
            fields=_FIELDS,
            timeout=_TIMEOUT,
            retry=DEFAULT_RETRY.with_timeout(_PATIENCE_SECONDS),
        )
        for blob in found:
            yield ObjectInfo(
                blob.name,
                int(blob.size or 0),
                blob.updated or _NEVER,
                int(blob.generation or 0),
                blob.time_deleted is not None,
            )


def list_own(
    client: Client, bucket: str, feed: Feed, since: datetime, limit: int | None = None
) -> Iterator[ObjectInfo]:
    """The objects of one feed since then, in order of name. Folders below it belong to tenants."""
    listing = Listing(feed.folder, start=feed.first_name(since), limit=limit, delimiter="/")
    begins = f"{feed.folder}{feed.stem}_"
    listed = list_objects(client, bucket, listing)
    return (found for found in listed if found.run_id and found.name.startswith(begins))
