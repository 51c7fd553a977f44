"""A usable state again: from an earlier version of the object, or from the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.cloud.storage import Client

from tap_forensics.cli.objects import (
    Listing,
    ObjectInfo,
    evidence_feed,
    list_objects,
    list_own,
    storage_errors,
)
from tap_forensics.clock import iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import StateUnreadable
from tap_forensics.forensics.evidence_writer import delivered_in
from tap_forensics.storage.bucket import Bucket, Stored
from tap_forensics.storage.open_items import mark_campaigns, mark_collected
from tap_forensics.storage.state import RUN_ID_FORMAT, VERSION, State, decode
from tap_forensics.tap.windows import RETENTION, oldest_start

_TIMEOUT = (10, 60)
# A run may write as long as Cloud Run lets it; the names of its objects contain its start.
_LONGEST_RUN = timedelta(hours=1)


@dataclass
class RepairedState:
    """`version` is the generation that it was taken from; None if it was built from the objects."""

    state: State
    version: int | None
    origin: str
    threats_found: int = 0
    objects_read: int = 0


@dataclass(frozen=True)
class Repair:
    """What a repair reads: the bucket, and the state object as found (`broken`; None if it is missing)."""

    client: Client
    bucket: Bucket
    settings: Settings
    broken: Stored | None
    now: datetime

    @property
    def name(self) -> str:
        return state_location(self.settings).name

    def evidence(self, since: datetime) -> Iterator[ObjectInfo]:
        return list_own(self.client, self.bucket.name, evidence_feed(self.settings), since)

    def versions(self) -> list[ObjectInfo]:
        """All versions of the state object."""
        listed = list_objects(self.client, self.bucket.name, Listing(self.name, versions=True))
        return [version for version in listed if version.name == self.name]


def corrupted_at(repair: Repair) -> datetime | None:
    """No run can have committed since this time; None if there is nothing to repair.

    A run that was at work then still believes in its lease for LEASE_SECONDS, and may write one more batch.
    """
    if repair.broken:
        listed = list_objects(repair.client, repair.bucket.name, Listing(repair.name, limit=1))
        return max((found.updated for found in listed if found.name == repair.name), default=repair.now)
    return repair.now if repair.versions() or any(repair.evidence(repair.now - RETENTION)) else None


def rebuild(repair: Repair, tell: Callable[[str], None]) -> RepairedState:
    """Writes nothing. Raises `StorageFailed`."""
    repaired = _newest_readable(repair) or _from_nothing(repair.now)
    for found in repair.evidence(_delivered_since(repaired.state, repair.now)):
        tell(f"Reading gs://{repair.bucket.name}/{found.name}")
        _count(repaired, found, repair)
    return repaired


def _newest_readable(repair: Repair) -> RepairedState | None:
    broken = repair.broken.generation if repair.broken else None
    versions = [version for version in repair.versions() if version.generation != broken]
    for version in sorted(versions, key=lambda v: v.generation, reverse=True):
        try:
            data = _version(repair.client, repair.bucket, version)
            state = decode(data, f"generation {version.generation}", repair.now)
        except StateUnreadable:
            continue
        origin = f"as in its version of {iso(version.updated)} (generation {version.generation})"
        return RepairedState(state, version.generation, origin)
    return None


def _version(client: Client, bucket: Bucket, version: ObjectInfo) -> bytes:
    blob = client.bucket(bucket.name).blob(version.name, generation=version.generation)
    with storage_errors(f"read gs://{bucket.name}/{version.name} of {iso(version.updated)}"):
        return bytes(blob.download_as_bytes(timeout=_TIMEOUT))


def _from_nothing(now: datetime) -> RepairedState:
    """Backlog and gaps are lost, but all of them are within the 7 days: a later cursor could skip some."""
    state = State(VERSION, last_event_time=oldest_start(now))
    return RepairedState(
        state, None, "from the evidence of the last 7 days, because it has no readable version"
    )


def _delivered_since(state: State, now: datetime) -> datetime:
    """From when on there may be objects with threats that this state does not know."""
    run_id = state.lease.run_id if state.lease else state.last_run_id
    begun = datetime.strptime(run_id, RUN_ID_FORMAT).replace(tzinfo=UTC) if run_id else now - RETENTION
    return max(begun, now - RETENTION) - _LONGEST_RUN


def _count(repaired: RepairedState, found: ObjectInfo, repair: Repair) -> None:
    """Its threats count as collected now: they are not fetched again for the whole of DEDUP_HOURS."""
    stored = repair.bucket.read(found.name)
    known = len(repaired.state.collected)
    for delivered in delivered_in(stored.data if stored else b""):
        mark_campaigns(repaired.state, delivered.campaigns, repair.now)
        if delivered.threat_id:
            mark_collected(repaired.state, delivered.threat_id, repair.now)
    repaired.threats_found += len(repaired.state.collected) - known
    repaired.objects_read += 1
    # No later run may use the name of an object that exists.
    repaired.state.last_run_id = max(repaired.state.last_run_id, found.run_id)
