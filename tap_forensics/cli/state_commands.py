"""`tap-forensics state repair` and `reset`: said, asked, and written over exactly what was read."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click
from google.cloud.storage import Client

from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.state_repair import RepairedState, corrupted_at, rebuild
from tap_forensics.cli.terminal import lasting, many, safe_text
from tap_forensics.clock import iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import StateUnreadable, StorageFailed
from tap_forensics.storage.bucket import Bucket, Conflict, Stored
from tap_forensics.storage.state import RUN_ID_FORMAT, VERSION, State, decode, encode
from tap_forensics.storage.state_store import lease_left_seconds

_BUCKET_SECONDS = 60
_JSON = "application/json"

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def open_bucket(client: Client, settings: Settings) -> Bucket:
    return Bucket(client, settings.bucket.name, lambda: _BUCKET_SECONDS)


def decoded(settings: Settings, stored: Stored, now: datetime) -> State:
    return decode(stored.data, f"gs://{settings.bucket.name}/{state_location(settings).name}", now)


@click.command(
    short_help="Make an unreadable or missing state readable again.",
    epilog="""\b
Example:
  tap-forensics state repair
\b
--json: {"repaired": true|false, "from": "version"|"objects"|null, "generation", "cursor",
  "threats_found", "objects_read"}; it needs --yes
""",
)
@yes_option
@cli_command
def repair(context: CommandContext, yes: bool) -> Exit:
    """Make an unreadable or missing state readable again, so that nothing is lost and nothing comes twice.

    First the newest readable version of the object is looked for (the bucket's versioning), and what later
    objects hold is counted as collected. Where there is no such version, a state is built from the
    evidence of the last 7 days: its cursor goes back to what TAP can still be asked for, since nothing
    later is certain. That costs about 168 SIEM calls and asks once more for threats without evidence. Do a
    run soon after: TAP forgets an hour every hour. Events come again where the memory beside the state has
    forgotten them.
    """
    settings = context.settings(credentials=False)
    _must_be_sure(context, yes)
    with context.client(settings) as client:
        bucket = open_bucket(client, settings)
        stored = bucket.read(state_location(settings).name)
        if stored and _readable(settings, stored, context.clock.now()):
            return _nothing_to_repair(context, "The state can be read; nothing was changed.")
        spoiled = corrupted_at(client, settings, stored, context.clock.now())
        if spoiled is None:
            return _nothing_to_repair(context, "There is no state and no evidence: the first run makes both.")
        _let_runs_notice(context, bucket, settings, spoiled)
        mended = rebuild(client, bucket, settings, stored, context.clock.now(), context.print_status)
        context.print_status(_about(settings, mended) + _perhaps_never(bucket, settings, stored, mended))
        if not (yes or click.confirm("Write it?", err=True)):
            return Exit.WRONG
        generation = _write(bucket, settings, mended.state, stored)
    _tell_repaired(context, settings, mended, generation)
    return Exit.GOOD


def _let_runs_notice(context: CommandContext, bucket: Bucket, settings: Settings, spoiled: datetime) -> None:
    """Until none believes any more that it holds a lease."""
    now = bucket.date or context.clock.now()
    wait = spoiled + timedelta(seconds=settings.run.lease_seconds) - now
    if wait > timedelta():
        context.print_status(
            f"Waiting {lasting(wait)}: a run that is at work must have noticed (LEASE_SECONDS)."
        )
        context.clock.sleep(wait.total_seconds())


def _readable(settings: Settings, stored: Stored, now: datetime) -> State | None:
    try:
        return decoded(settings, stored, now)
    except StateUnreadable:
        return None


def _nothing_to_repair(context: CommandContext, why: str) -> Exit:
    if context.as_json:
        context.print_json({"repaired": False, "from": None})
    else:
        context.out.print(safe_text(why))
    return Exit.GOOD


def _about(settings: Settings, mended: RepairedState) -> str:
    cursor = mended.state.last_event_time
    found = f"{many(mended.threats_found, 'more threat')}, found in {many(mended.objects_read, 'object')}"
    return (
        f"gs://{settings.bucket.name}/{state_location(settings).name} shall be written {mended.origin}. "
        f"Its cursor: {iso(cursor) if cursor else 'none'}. {found}, count as collected."
    )


def _perhaps_never(bucket: Bucket, settings: Settings, stored: Stored | None, mended: RepairedState) -> str:
    """Missing is not always lost: the first run after the published function takes its object over."""
    before = state_location(settings).legacy_key
    if stored or mended.version or not before or not bucket.read(before):
        return ""
    return (
        f" But gs://{settings.bucket.name}/{before} is there: if this collector never ran here, its first "
        "run takes that over, and there is nothing to repair."
    )


def _tell_repaired(
    context: CommandContext, settings: Settings, mended: RepairedState, generation: int
) -> None:
    if context.as_json:
        source = "version" if mended.version else "objects"
        told: dict[str, Any] = {"repaired": True, "from": source, "generation": generation}
        told |= {"cursor": mended.state.last_event_time, "threats_found": mended.threats_found}
        context.print_json(told | {"objects_read": mended.objects_read})
    else:
        words = (
            f"Written: gs://{settings.bucket.name}/{state_location(settings).name}, generation {generation}."
        )
        context.out.print(safe_text(words), soft_wrap=True)


@click.command(
    short_help="Start anew, with a copy of the old state kept.",
    epilog="""\b
Example:
  tap-forensics state reset
\b
--json: {"reset": true, "copy": NAME | null, "generation"}; it needs --yes
""",
)
@yes_option
@cli_command
def reset(context: CommandContext, yes: bool) -> Exit:
    """Start anew: the next run reads back LOOKBACK_HOURS (or from SINCE_TIME), as a first run does.

    Backlog, gaps and what was collected are forgotten: threats that wait are lost unless the lookback
    covers them, and those that it covers come once more. The count of calls stays. A copy of the old object
    is kept beside it.
    """
    settings = context.settings(credentials=False)
    _must_be_sure(context, yes)
    with context.client(settings) as client:
        bucket = open_bucket(client, settings)
        stored = bucket.read(state_location(settings).name)
        now = context.clock.now()
        store = _readable(settings, stored, now) if stored else None
        if stored and store and _live(context, bucket, settings, stored, store):
            return Exit.BUSY
        if stored and not store:
            _let_runs_notice(context, bucket, settings, corrupted_at(client, settings, stored, now) or now)
        context.print_status(_about_reset(settings, stored, store))
        if not (yes or click.confirm("Reset it?", err=True)):
            return Exit.WRONG
        copy = _copy(bucket, settings, stored, now)
        fresh = State(VERSION, last_run_id=_last_run(store), calls=store.calls if store else {})
        generation = _write(bucket, settings, fresh, stored)
    if context.as_json:
        context.print_json({"reset": True, "copy": copy, "generation": generation})
    else:
        kept = f" The old one is gs://{settings.bucket.name}/{copy}." if copy else ""
        context.out.print(safe_text(f"Reset: the next run begins as a first run does.{kept}"), soft_wrap=True)
    return Exit.GOOD


def _last_run(store: State | None) -> str:
    """A dead run's id counts too: its objects' names must not come again."""
    return max(store.last_run_id, store.lease.run_id if store.lease else "") if store else ""


def _about_reset(settings: Settings, stored: Stored | None, store: State | None) -> str:
    where = f"gs://{settings.bucket.name}/{state_location(settings).name}"
    if stored is None:
        return f"{where} is not there; an empty state shall be written."
    if store is None:
        return f"{where} cannot be read; `tap-forensics state repair` may bring it back. It shall be reset."
    return (
        f"{where} shall be reset. To be forgotten: {many(len(store.backlog), 'threat')} of the backlog, "
        f"{many(len(store.gaps), 'gap')}, {many(len(store.collected), 'collected threat')}, and the cursor."
    )


def _copy(bucket: Bucket, settings: Settings, stored: Stored | None, now: datetime) -> str | None:
    """Beside the state, and so where no feed looks."""
    if stored is None:
        return None
    name = f"{state_location(settings).name}.before-reset-{now.strftime(RUN_ID_FORMAT)}"
    bucket.create(name, stored.data, _JSON)
    return name


def _must_be_sure(context: CommandContext, yes: bool) -> None:
    if context.as_json and not yes:
        raise click.UsageError("--json asks nothing: give --yes with it")


def _live(context: CommandContext, bucket: Bucket, settings: Settings, stored: Stored, store: State) -> bool:
    name = state_location(settings).name
    left = lease_left_seconds(bucket, name, stored.generation, store, settings.run.lease_seconds)
    if store.lease is None or left is None or left <= 0:
        return False
    until = context.clock.now() + timedelta(seconds=left)
    context.print_status(
        f"Run {store.lease.run_id} is at work and holds the lease until {iso(until)}: "
        "wait for its end. Nothing was changed."
    )
    if context.as_json:
        context.print_json({"error": "busy", "lease": {"run_id": store.lease.run_id, "until": until}})
    return True


def _write(bucket: Bucket, settings: Settings, store: State, stored: Stored | None) -> int:
    """Over exactly what was read. Raises `StorageFailed` where another was faster."""
    name = state_location(settings).name
    try:
        return bucket.replace(name, encode(store), _JSON, stored.generation if stored else 0)
    except Conflict:
        raise StorageFailed(
            f"gs://{bucket.name}/{name} was changed meanwhile; nothing was written. Look again with "
            "`tap-forensics state show`"
        ) from None
