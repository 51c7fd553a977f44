"""The kinds of lines that SecOps reads, and the newest line of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from google.cloud.storage import Client

from tap_forensics.cli.objects import Feed, list_own, storage_errors
from tap_forensics.config.settings import Settings
from tap_forensics.log import escape_unprintable
from tap_forensics.secops.samples import newest_line
from tap_forensics.tap.windows import RETENTION

EVIDENCE = "PROOFPOINT_TAP_FORENSICS"
_OBJECTS_TRIED = 5
# More than any batch of the function.
_READ_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Kind:
    """`id_field`: the field of a line that holds a threat's id."""

    feed: Feed
    log_type: str
    id_field: str


@dataclass(frozen=True)
class Sample:
    """A line, and the object that it is from."""

    line: bytes
    place: str
    updated: datetime


def kinds(settings: Settings) -> list[Kind]:
    """Those whose folder is set."""
    evidence = settings.bucket.prefix if settings.forensics.enabled else None
    # Folder, beginning of the names, log type, field of the id.
    table = (
        (evidence, "tap_forensics", EVIDENCE, "_threatId"),
        (settings.events.prefix, "tap_siem_events", "PROOFPOINT_MAIL", "threatID"),
        (settings.summaries.prefix, "tap_threat_summaries", "PROOFPOINT_TAP_THREATS", "id"),
    )
    return [Kind(Feed(prefix, stem), *rest) for prefix, stem, *rest in table if prefix is not None]


def newest_sample(client: Client, bucket: str, kind: Kind, now: datetime) -> Sample | None:
    """Raises `StorageFailed`."""
    found = sorted(list_own(client, bucket, kind.feed, now - RETENTION), key=lambda info: info.updated)
    for info in reversed(found[-_OBJECTS_TRIED:]):
        place = f"gs://{bucket}/{info.name}"
        with storage_errors(f"read {place}"), client.bucket(bucket).blob(info.name).open("rb") as data:
            line = newest_line(data.read(_READ_BYTES), kind.id_field)
        if line is not None:
            return Sample(line, escape_unprintable(place), info.updated)
    return None
