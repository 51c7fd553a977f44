"""The bucket's part of the audit: the feeds' objects, their lines, and traces of what was deleted."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, BinaryIO

from google.api_core.exceptions import GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.audit.lines import BucketLines, Defect, SourceObject
from tap_forensics.cli.activity import Say
from tap_forensics.cli.objects import Feed, Listing, ObjectInfo, list_objects, storage_errors
from tap_forensics.cli.terminal import many
from tap_forensics.errors import StorageFailed

_TIMEOUT = (10, 60)
_RETRY = DEFAULT_RETRY.with_timeout(60)
# Larger ones are read in pieces. The function's own have about 4 MiB.
_WHOLE_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_LONGEST_RUN = timedelta(days=1)


@dataclass
class FeedReading:
    """One feed. Objects that were written before `since` are not read.

    `read`: names and generations. `deleted`: how many objects were read from a noncurrent version.
    `vanished`: how many were deleted while the audit read. `numbers`: of each run's objects.
    """

    feed: Feed
    since: datetime
    of_events: bool
    read: set[tuple[str, int]] = field(default_factory=set)
    deleted: int = 0
    vanished: int = 0
    numbers: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def sign_of_deletion(self) -> str:
        """What shows that objects were deleted and no version is left; empty if nothing does."""
        if self.vanished:
            return f"{many(self.vanished, 'object')} vanished during the audit"
        holes = [run_id for run_id, numbers in self.numbers.items() if max(numbers) > len(numbers)]
        return f"objects of run {min(holes)} are missing" if holes else ""


def read_feed(client: Client, bucket: str, reading: FeedReading, lines: BucketLines, say: Say) -> None:
    """Reads what was not read yet. Raises `StorageFailed` or `Undecidable`."""
    found = list(_newest_versions(client, bucket, reading))
    for number, info in enumerate(found, 1):
        say(f"Reading object {number:,} of {len(found):,} in {reading.feed.folder}: {lines.lines:,} lines")
        reading.read.add((info.name, info.generation))
        try:
            _read_object(client, bucket, info, reading, lines)
        except StorageFailed as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            reading.vanished += 1


def _newest_versions(client: Client, bucket: str, reading: FeedReading) -> Iterator[ObjectInfo]:
    """The newest version of each object, also of a deleted one, if it was written in the time in question."""
    listed = list_objects(client, bucket, Listing(reading.feed.folder, versions=True))
    for _, versions in groupby(listed, lambda version: version.name):
        info = max(versions, key=lambda version: version.generation)
        # All objects of a run, also if it began to write before the time in question.
        if _is_own(info, reading.feed) and info.updated >= reading.since - _LONGEST_RUN:
            reading.numbers[info.run_id].add(info.number)
        if info.updated >= reading.since and (info.name, info.generation) not in reading.read:
            yield info


def _is_own(info: ObjectInfo, feed: Feed) -> bool:
    """Whether the function wrote it for this feed. Folders below it belong to tenants."""
    begins = f"{feed.folder}{feed.stem}_"
    return bool(info.run_id) and info.name.startswith(begins) and "/" not in info.name[len(begins) :]


def _read_object(
    client: Client, bucket: str, info: ObjectInfo, reading: FeedReading, lines: BucketLines
) -> None:
    """The lines of the function's own objects; of others in the folder, only whether a feed can read them."""
    if not info.noncurrent and (fault := _fault_of_object(info)):
        lines.unreadable.append(Defect(info.name, fault))
        return
    is_own = _is_own(info, reading.feed)
    if not is_own and (info.noncurrent or not _is_plain_file(info, reading.feed)):
        return
    with storage_errors(f"read gs://{bucket}/{info.name}"):
        stream = _opened(client, bucket, info)
        if is_own:
            reading.deleted += info.noncurrent
            source = SourceObject(info.name, info.run_id, info.updated)
            lines.add_object(source, stream, of_events=reading.of_events)
        else:
            lines.check_object(info.name, stream)


def _fault_of_object(info: ObjectInfo) -> str:
    if "//" in info.name:
        return "`//` in its name: a feed does not read it"
    return "an empty object" if not info.size_bytes and not info.name.endswith("/") else ""


def _is_plain_file(info: ObjectInfo, feed: Feed) -> bool:
    """Directly in the feed's folder, and not packed."""
    return "/" not in info.name[len(feed.folder) :] and not info.name.endswith(".gz")


def _opened(client: Client, bucket: str, info: ObjectInfo) -> BinaryIO:
    """This version, also if it is replaced or deleted since."""
    blob = client.bucket(bucket).blob(info.name, generation=info.generation)
    if info.size_bytes <= _WHOLE_BYTES:
        return io.BytesIO(blob.download_as_bytes(timeout=_TIMEOUT, retry=_RETRY))
    raw = blob.open("rb", chunk_size=_WHOLE_BYTES, timeout=_TIMEOUT, retry=_RETRY)
    # Alone, it would be read byte by byte to find a line's end.
    return io.BufferedReader(raw, _PIECE_BYTES)


def lifecycle_sign(client: Client, bucket: str, prefix: str, oldest: timedelta) -> str:
    """Whether a lifecycle rule deletes what is younger than `oldest`; empty also if that cannot be read."""
    about = client.bucket(bucket)
    try:
        about.reload(timeout=_TIMEOUT, retry=_RETRY)
    except (GoogleAPIError, GoogleAuthError, OSError):
        # Readers of objects need not have the right to read the bucket's settings.
        return ""
    # With versions, what was deleted is still there.
    rules = [] if about.versioning_enabled else about.lifecycle_rules
    return deleting_rule(rules, prefix, oldest)


def deleting_rule(rules: Iterable[Mapping[str, Any]], prefix: str, oldest: timedelta) -> str:
    """https://cloud.google.com/storage/docs/lifecycle: conditions of a rule are joined by "and"."""
    for rule in rules:
        condition = rule.get("condition", {})
        age = condition.get("age")
        begins = condition.get("matchesPrefix") or [""]
        is_meant = rule.get("action", {}).get("type") == "Delete" and isinstance(age, int)
        if is_meant and age < oldest / timedelta(days=1) and any(prefix.startswith(one) for one in begins):
            return f"a lifecycle rule deletes objects after {many(age, 'day')}"
    return ""
