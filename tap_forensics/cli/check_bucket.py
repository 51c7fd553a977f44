"""The bucket's side of the doctor: rights, the state object, and what the feeds would stumble over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from google.api_core.exceptions import NotFound
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.cli.context import CommandContext
from tap_forensics.cli.diagnosis import Finding, ok, warning, wrong
from tap_forensics.cli.objects import (
    EVENTS_STEM,
    EVIDENCE_STEM,
    ObjectInfo,
    asking,
    first_name,
    folder,
    list_objects,
)
from tap_forensics.cli.status import calls
from tap_forensics.cli.terminal import lasting, many
from tap_forensics.clock import Clock, iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import RunFailed, StorageFailed
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.event_dedup import decode as decode_memory
from tap_forensics.storage.open_items import read_until
from tap_forensics.storage.remedies import COLLECTOR_ROLE
from tap_forensics.storage.state import State
from tap_forensics.storage.state_store import FoundState, find_state
from tap_forensics.tap.quota import FORENSICS, SIEM, Pool
from tap_forensics.tap.windows import RETENTION

# What the function does with its objects, and why it may not do without.
NEEDED = {
    "storage.objects.get": "to read the state",
    "storage.objects.create": "to write evidence",
    "storage.objects.delete": "to write over the state object",
    "storage.objects.list": "to tell a missing object from a forbidden one",
}
# More than a collector should have: with these, whoever takes it over can open or destroy the evidence.
UNWANTED = ("storage.buckets.delete", "storage.buckets.setIamPolicy", "storage.buckets.update")
_TIMEOUT = (10, 30)
_LAG_SEEN = timedelta(hours=2)
_NAMES_AT_MOST = 20_000
# SecOps fails a whole feed at a line over 4 MB; only objects that are larger can hold one.
_LONGEST_LINE_BYTES = 4_000_000
_LOOKED_INTO_AT_MOST = 10
_CHUNK_BYTES = 1024 * 1024
_EXAMPLES = 3
_FEW_LEFT = 0.1


def probe_rights(context: CommandContext, client: Client, settings: Settings) -> Iterator[Finding]:
    """Of whoever runs this. Raises `StorageFailed` where the bucket cannot be asked at all."""
    where = f"gs://{settings.bucket.name}"
    try:
        with asking(f"ask for the rights on {where}"):
            store = set(
                client.bucket(settings.bucket.name).test_iam_permissions(
                    [*NEEDED, *UNWANTED], timeout=_TIMEOUT, retry=DEFAULT_RETRY.with_timeout(30)
                )
            )
    except StorageFailed as error:
        if context.emulated and isinstance(error.__cause__, NotFound):
            yield warning("rights", f"an emulator does not know of rights: not checked on {where}")
            return
        raise
    who = _identity(client)
    for right, why in NEEDED.items():
        if right not in store:
            remedy = f"give the function's service account {COLLECTOR_ROLE} on this bucket"
            yield wrong("rights", f"{who} lacks {right} on {where}, {why}", remedy)
    if set(NEEDED) <= store:
        yield ok("rights", f"{who} may do on {where} what the function does")
    for right in UNWANTED:
        if right in store:
            yield warning(
                "rights", f"{who} has {right} on {where}, which the function never needs", _TOO_MUCH
            )


_TOO_MUCH = (
    "if that is the function's account, take it away; if it is you, check as the function: "
    "gcloud auth application-default login --impersonate-service-account=ACCOUNT"
)


def _identity(client: Client) -> str:
    email = getattr(client._credentials, "service_account_email", None)
    return escape_unprintable(str(email)) if email and email != "default" else "this identity"


def probe_state(bucket: Bucket, settings: Settings, clock: Clock) -> Iterator[Finding]:
    """The working state: where it is, whether a run could begin with it, and what it waits for."""
    location = state_location(settings)
    where = f"gs://{bucket.name}/{location.name}"
    if settings.bucket.prefix:
        yield ok("state place", f"{where}, outside the feeds' folders")
    else:
        yield warning(
            "state place",
            f"{where}; GCS_PREFIX is empty, so that a feed of the whole bucket ingests it",
            "set GCS_PREFIX and let the feed read that folder",
        )
    try:
        found = find_state(bucket, location, clock, settings.run.lease_seconds)
    except RunFailed as error:
        yield wrong("state", str(error).partition("; ")[0], "tap-forensics state repair")
        return
    state, now = found.state, clock.now()
    yield from _cursor(found, now)
    yield from _lease(found, now)
    yield from _gaps(state, now)
    yield from _pools(state, settings, now)
    yield from _memory(bucket, settings, location.name)


def _cursor(found: FoundState, now: datetime) -> Iterator[Finding]:
    state = found.state
    if state.last_event_time is None:
        yield ok("state", "none yet: the first run reads back LOOKBACK_HOURS, or from SINCE_TIME")
        return
    lag = now - (read_until(state) or state.last_event_time)
    whose = "" if found.generation else " (the published function wrote it)"
    words = f"readable{whose}, its cursor {lasting(lag)} ago"
    if lag > RETENTION:
        yield wrong("state", words, "TAP keeps 7 days: what lies before is lost; do a run now")
    elif lag > _LAG_SEEN:
        yield warning("state", words, "is the schedule running? See the log of the last runs")
    else:
        yield ok("state", words)


def _lease(found: FoundState, now: datetime) -> Iterator[Finding]:
    lease, left = found.state.lease, found.lease_left_seconds
    if lease is None or left is None:
        yield ok("lease", "free")
    elif found.live:
        yield ok("lease", f"held by run {lease.run_id} until {iso(now + timedelta(seconds=left))}")
    else:
        yield warning("lease", f"run {lease.run_id} died", "none: the next run takes it over")


def _gaps(state: State, now: datetime) -> Iterator[Finding]:
    if not state.gaps:
        return
    left = min(gap.start for gap in state.gaps) + RETENTION - now
    words = (
        f"{many(len(state.gaps), 'interval')} could not be read yet; TAP forgets the first in {lasting(left)}"
    )
    yield warning("gaps", words, "each run asks again; see the log for TAP's answers")


def _pools(state: State, settings: Settings, now: datetime) -> Iterator[Finding]:
    limits = {SIEM: settings.tap.siem_daily_limit, FORENSICS: settings.tap.forensics_daily_limit}
    for name, limit in limits.items():
        pool = calls(state.calls.get(name, Pool()), limit, now)
        words = f"{pool['used']:,} {name} calls in 24 hours"
        if pool["limited_at"]:
            yield warning(
                "calls", f"{words}; 429 ended them at {iso(pool['limited_at'])}", "none: they come back"
            )
        elif limit is None:
            yield ok("calls", f"{words}; no limit is set")
        elif pool["left"] == 0:
            back = (
                f"the next comes back at {iso(pool['next_back'])}" if pool["next_back"] else "none come back"
            )
            yield wrong("calls", f"{words} of {limit:,}: none left", back)
        elif pool["left"] < limit * _FEW_LEFT:
            yield warning(
                "calls", f"{words} of {limit:,}: {pool['left']:,} left", "a longer schedule needs fewer"
            )
        else:
            yield ok("calls", f"{words} of {limit:,}: {pool['left']:,} left")


def _memory(bucket: Bucket, settings: Settings, state_name: str) -> Iterator[Finding]:
    if settings.events.prefix is None:
        return
    name = f"{state_name}.seen"
    try:
        stored = bucket.read(name)
        known = len(decode_memory(stored.data, f"gs://{bucket.name}/{name}").entries) if stored else 0
    except RunFailed as error:
        yield wrong("events' memory", str(error))
    else:
        yield ok("events' memory", f"readable, {many(known, 'event')}")


def probe_objects(client: Client, settings: Settings, now: datetime) -> Iterator[Finding]:
    """What a SecOps feed would fail at, or never read. Raises `StorageFailed`."""
    for prefix, stem in ((settings.bucket.prefix, EVIDENCE_STEM), (settings.events.prefix, EVENTS_STEM)):
        if prefix is None:
            continue
        listed, words = _listed(client, settings, prefix, stem, now)
        where = f"gs://{settings.bucket.name}/{folder(prefix)}"
        found = [*_names(where, listed), *_sizes(client, settings, where, listed)]
        yield from found
        if not found:
            yield ok("objects", f"{where}: {words} can be read by the feed")


def _listed(
    client: Client, settings: Settings, prefix: str, stem: str, now: datetime
) -> tuple[list[ObjectInfo], str]:
    """Everything, or of very much the first by name and the last week."""
    bucket, within = settings.bucket.name, folder(prefix)
    first = list(list_objects(client, bucket, within, most=_NAMES_AT_MOST))
    if len(first) < _NAMES_AT_MOST:
        return first, many(len(first), "object")
    week = list_objects(
        client, bucket, within, start=first_name(prefix, stem, now - RETENTION), most=_NAMES_AT_MOST
    )
    both = list({found.name: found for found in [*first, *week]}.values())
    return both, f"{len(both):,} objects (the first by name, and the last week's)"


def _names(where: str, listed: list[ObjectInfo]) -> Iterator[Finding]:
    if doubled := [found.name for found in listed if "//" in found.name]:
        names = many(len(doubled), "name")
        words = f"{where}: {names} with //, which the feed does not read: {_examples(doubled)}"
        yield wrong("objects", words, "move them; no name of the function's has it")
    if empty := [found.name for found in listed if not found.size_bytes and not found.name.endswith("/")]:
        words = f"{where}: {many(len(empty), 'empty object')}: {_examples(empty)}"
        yield warning("objects", words, "delete them; the function writes none")


def _sizes(client: Client, settings: Settings, where: str, listed: list[ObjectInfo]) -> Iterator[Finding]:
    """Looks into the newest of those that are large enough."""
    large = [found for found in listed if found.size_bytes > _LONGEST_LINE_BYTES]
    newest = sorted(large, key=lambda found: found.updated)[-_LOOKED_INTO_AT_MOST:]
    long = [found.name for found in newest if _has_long_line(client, settings.bucket.name, found.name)]
    if long:
        words = f"{where}: lines over 4 MB, at which the whole feed fails: {_examples(long)}"
        yield wrong("objects", words, "move them out of the folder; the function splits such lines")
    elif len(newest) < len(large):
        yield warning("objects", f"{where}: looked into {len(newest)} of {len(large)} objects over 4 MB")


def _has_long_line(client: Client, bucket: str, name: str) -> bool:
    length = 0
    with asking(f"read gs://{bucket}/{name}"), client.bucket(bucket).blob(name).open("rb") as data:
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
