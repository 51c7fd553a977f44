"""A state that can be used again: from an earlier version of the object, or from the evidence itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.cloud.storage import Client

from tap_forensics.cli.objects import EVIDENCE_STEM, ObjectInfo, asking, list_objects, list_own
from tap_forensics.clock import iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import StateUnreadable
from tap_forensics.forensics.evidence_writer import delivered_in
from tap_forensics.storage.bucket import Bucket, Stored
from tap_forensics.storage.open_items import mark_collected
from tap_forensics.storage.state import RUN_ID_FORMAT, VERSION, State, decode
from tap_forensics.tap.windows import RETENTION, oldest_start

_TIMEOUT = (10, 60)
# A run may write for as long as Cloud Run lets it; its objects' names carry its start.
_LONGEST_RUN = timedelta(hours=1)


@dataclass
class RepairedState:
    """`version` is the generation it was taken from; None where it was built from the objects."""

    state: State
    version: int | None
    origin: str
    threats_found: int = 0
    objects_read: int = 0


def corrupted_at(client: Client, settings: Settings, broken: Stored | None, now: datetime) -> datetime | None:
    """Since when no run can have committed; None where there is nothing to mend.

    A run that was at work then believes in its lease for LEASE_SECONDS more, and may write one more batch.
    """
    bucket, name = settings.bucket.name, state_location(settings).name
    if broken:
        listed = list_objects(client, bucket, name, most=1)
        return max((found.updated for found in listed if found.name == name), default=now)
    versions = list_objects(client, bucket, name, versions=True)
    known = any(version.name == name for version in versions)
    return now if known or any(_evidence(client, settings, now - RETENTION)) else None


def rebuild(
    client: Client,
    bucket: Bucket,
    settings: Settings,
    broken: Stored | None,
    now: datetime,
    tell: Callable[[str], None],
) -> RepairedState:
    """Nothing is written here. Raises `StorageFailed`."""
    mended = _newest_readable(client, bucket, settings, broken, now) or _from_nothing(now)
    since = _delivered_since(mended.state, now)
    for found in _evidence(client, settings, since):
        tell(f"Reading gs://{bucket.name}/{found.name}")
        _count(mended, found, bucket, now)
    return mended


def _newest_readable(
    client: Client, bucket: Bucket, settings: Settings, broken: Stored | None, now: datetime
) -> RepairedState | None:
    name = state_location(settings).name
    listed = list_objects(client, bucket.name, name, versions=True)
    versions = [v for v in listed if v.name == name and not (broken and v.generation == broken.generation)]
    for version in sorted(versions, key=lambda v: v.generation, reverse=True):
        try:
            state = decode(_version(client, bucket, version), f"generation {version.generation}", now)
        except StateUnreadable:
            continue
        origin = f"as its version of {iso(version.updated)} was (generation {version.generation})"
        return RepairedState(state, version.generation, origin)
    return None


def _version(client: Client, bucket: Bucket, version: ObjectInfo) -> bytes:
    blob = client.bucket(bucket.name).blob(version.name, generation=version.generation)
    with asking(f"read gs://{bucket.name}/{version.name} of {iso(version.updated)}"):
        return bytes(blob.download_as_bytes(timeout=_TIMEOUT))


def _from_nothing(now: datetime) -> RepairedState:
    """What waited on the backlog or in gaps is known to nobody any more, only that it came within the 7 days:
    a later cursor could pass it.
    """
    state = State(VERSION, last_event_time=oldest_start(now))
    return RepairedState(
        state, None, "from the evidence of the last 7 days, there being no readable version of it"
    )


def _delivered_since(state: State, now: datetime) -> datetime:
    """When the objects begin whose threats this state may not know of: with its last run, at the latest."""
    run_id = state.lease.run_id if state.lease else state.last_run_id
    begun = datetime.strptime(run_id, RUN_ID_FORMAT).replace(tzinfo=UTC) if run_id else now - RETENTION
    return max(begun, now - RETENTION) - _LONGEST_RUN


def _evidence(client: Client, settings: Settings, since: datetime) -> Iterator[ObjectInfo]:
    return list_own(client, settings.bucket.name, settings.bucket.prefix, EVIDENCE_STEM, since)


def _count(mended: RepairedState, found: ObjectInfo, bucket: Bucket, now: datetime) -> None:
    """Its threats count as collected now: for the whole of DEDUP_HOURS they are not asked for again."""
    stored = bucket.read(found.name)
    known = len(mended.state.collected)
    for threat_id, _ in delivered_in(stored.data if stored else b""):
        mark_collected(mended.state, threat_id, now)
    mended.threats_found += len(mended.state.collected) - known
    mended.objects_read += 1
    # No later run may take the name of an object that lies there.
    mended.state.last_run_id = max(mended.state.last_run_id, found.run_id)
