"""The bucket's part of the health check: the state object, and what a feed would fail on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from google.cloud.storage import Client

from tap_forensics.cli.diagnosis import Finding, ok, warning, wrong
from tap_forensics.cli.objects import Feed, Listing, ObjectInfo, feeds, list_objects, storage_errors
from tap_forensics.cli.state_findings import index_findings, place_finding, state_findings
from tap_forensics.cli.terminal import many
from tap_forensics.clock import Clock
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import RunFailed
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.state_store import find_state
from tap_forensics.tap.windows import RETENTION

_MAX_NAMES = 20_000
# A line over 4 MB makes the whole SecOps feed fail; only larger objects can hold one.
_LONGEST_LINE_BYTES = 4_000_000
_MAX_READ = 10
_CHUNK_BYTES = 1024 * 1024
_EXAMPLES = 3


def check_state(bucket: Bucket, settings: Settings, clock: Clock) -> Iterator[Finding]:
    """The working state: where it is, whether a run can start with it, and what is open in it."""
    yield place_finding(settings)
    try:
        found = find_state(bucket, state_location(settings), clock, settings.run.lease_seconds)
    except RunFailed as error:
        yield wrong("state", str(error).partition("; ")[0], "tap-forensics state repair")
        return
    yield from state_findings(found, settings, clock.now())
    yield from index_findings(bucket, settings)


def check_objects(client: Client, settings: Settings, now: datetime) -> Iterator[Finding]:
    """What makes a SecOps feed fail, or what it never reads. Raises `StorageFailed`."""
    for feed in feeds(settings):
        listed, words = _listed(client, settings.bucket.name, feed, now)
        where = f"gs://{settings.bucket.name}/{feed.folder}"
        found = [*_names(where, listed), *_sizes(client, settings.bucket.name, where, listed)]
        yield from found
        if not found:
            yield ok("objects", f"{where}: {words} can be read by the feed")


def _listed(client: Client, bucket: str, feed: Feed, now: datetime) -> tuple[list[ObjectInfo], str]:
    """Everything; or of very many objects the first by name, and those of the last week."""
    first = list(list_objects(client, bucket, Listing(feed.folder, limit=_MAX_NAMES)))
    if len(first) < _MAX_NAMES:
        return first, many(len(first), "object")
    last_week = Listing(feed.folder, start=feed.first_name(now - RETENTION), limit=_MAX_NAMES)
    both = {found.name: found for found in [*first, *list_objects(client, bucket, last_week)]}
    return list(both.values()), f"{len(both):,} objects (the first by name, and those of the last week)"


def _names(where: str, listed: list[ObjectInfo]) -> Iterator[Finding]:
    if doubled := [found.name for found in listed if "//" in found.name]:
        names = many(len(doubled), "name")
        words = f"{where}: {names} with //, which the feed does not read: {_examples(doubled)}"
        yield wrong("objects", words, "move them; the function writes no such name")
    if empty := [found.name for found in listed if not found.size_bytes and not found.name.endswith("/")]:
        words = f"{where}: {many(len(empty), 'empty object')}: {_examples(empty)}"
        yield warning("objects", words, "delete them; the function writes none")


def _sizes(client: Client, bucket: str, where: str, listed: list[ObjectInfo]) -> Iterator[Finding]:
    """Reads the newest of those that are large enough."""
    large = [found for found in listed if found.size_bytes > _LONGEST_LINE_BYTES]
    newest = sorted(large, key=lambda found: found.updated)[-_MAX_READ:]
    long = [found.name for found in newest if _has_long_line(client, bucket, found.name)]
    if long:
        words = f"{where}: lines over 4 MB, which make the whole feed fail: {_examples(long)}"
        yield wrong("objects", words, "move them out of the folder; the function splits such lines")
    elif len(newest) < len(large):
        yield warning("objects", f"{where}: read only {len(newest)} of {len(large)} objects over 4 MB")


def _has_long_line(client: Client, bucket: str, name: str) -> bool:
    length = 0
    with storage_errors(f"read gs://{bucket}/{name}"), client.bucket(bucket).blob(name).open("rb") as data:
        while chunk := data.read(_CHUNK_BYTES):
            first, *others = chunk.split(b"\n")
            length += len(first)
            if max([length, *map(len, others)]) > _LONGEST_LINE_BYTES:
                return True
            length = len(others[-1]) if others else length
    return False


def _examples(names: list[str]) -> str:
    shown = ", ".join(escape_unprintable(name) for name in names[:_EXAMPLES])
    return shown + (" …" if len(names) > _EXAMPLES else "")
