"""`tap-forensics state repair` and `reset`: announced, confirmed, and written over exactly what was read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import click
from google.cloud.storage import Client

from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.state_repair import Repair, RepairedState, corrupted_at, rebuild
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
    """Make an unreadable or missing state readable again, without losing or repeating evidence.

    Takes the newest readable version of the object (the bucket's versioning), and counts the threats in
    later objects as collected. If there is no such version, it builds a state from the evidence of the last
    7 days. The cursor of that state is 7 days back, because nothing later is certain: about 168 SIEM calls,
    and threats without evidence are asked for once more. Start a run soon after, because TAP forgets an
    hour every hour. Events that the event dedup index no longer contains are written again.
    """
    settings = context.settings(credentials=False)
    _require_yes(context, yes)
    with context.client(settings) as client:
        bucket = open_bucket(client, settings)
        stored = bucket.read(state_location(settings).name)
        if stored and _readable(settings, stored, context.clock.now()):
            return _nothing_to_repair(context, "The state can be read; nothing was changed.")
        work = Repair(client, bucket, settings, stored, context.clock.now())
        corrupted = corrupted_at(work)
        if corrupted is None:
            return _nothing_to_repair(
                context, "There is no state and no evidence: the first run writes both."
            )
        _let_runs_notice(context, bucket, settings, corrupted)
        # Runs may have written more since.
        work = replace(work, now=context.clock.now())
        repaired = rebuild(work, context.print_status)
        context.print_status(_about(settings, repaired) + _perhaps_never(work, repaired))
        if not (yes or click.confirm("Write it?", err=True)):
            return Exit.WRONG
        generation = _write(bucket, settings, repaired.state, stored)
    _print_repaired(context, settings, repaired, generation)
    return Exit.GOOD


def _let_runs_notice(
    context: CommandContext, bucket: Bucket, settings: Settings, corrupted: datetime
) -> None:
    """Waits until no run can believe that it holds a lease."""
    now = bucket.date or context.clock.now()
    wait = corrupted + timedelta(seconds=settings.run.lease_seconds) - now
    if wait > timedelta():
        context.print_status(
            f"Waiting {lasting(wait)} (LEASE_SECONDS), so that a run that is at work notices it."
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
        context.out.print(safe_text(why), soft_wrap=True)
    return Exit.GOOD


def _about(settings: Settings, repaired: RepairedState) -> str:
    cursor = repaired.state.last_event_time
    found = f"{many(repaired.threats_found, 'more threat')}, found in {many(repaired.objects_read, 'object')}"
    return (
        f"gs://{settings.bucket.name}/{state_location(settings).name} will be written "
        f"{repaired.origin}. Its cursor: {iso(cursor) if cursor else 'none'}. {found}, count as collected."
    )


def _perhaps_never(repair: Repair, repaired: RepairedState) -> str:
    """Missing is not always lost: the first run here takes over the object of the published function."""
    legacy = state_location(repair.settings).legacy_key
    if repair.broken or repaired.version or not legacy or not repair.bucket.read(legacy):
        return ""
    return (
        f" But gs://{repair.bucket.name}/{legacy} exists: if this collector never ran here, its first run "
        "takes that over, and there is nothing to repair."
    )


def _print_repaired(
    context: CommandContext, settings: Settings, repaired: RepairedState, generation: int
) -> None:
    if context.as_json:
        source = "version" if repaired.version else "objects"
        result: dict[str, Any] = {"repaired": True, "from": source, "generation": generation}
        result |= {"cursor": repaired.state.last_event_time, "threats_found": repaired.threats_found}
        context.print_json(result | {"objects_read": repaired.objects_read})
    else:
        name = f"gs://{settings.bucket.name}/{state_location(settings).name}"
        context.out.print(safe_text(f"Written: {name}, generation {generation}."), soft_wrap=True)


@click.command(
    short_help="Start anew; a copy of the old state is kept.",
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
    """Start anew: the next run reads back LOOKBACK_HOURS (or from SINCE_TIME), like a first run.

    Forgets backlog, gaps and collected threats: open threats are lost unless the lookback covers them, and
    threats that it covers are collected once more. The count of calls stays. Keeps a copy of the old object
    beside it.
    """
    settings = context.settings(credentials=False)
    _require_yes(context, yes)
    with context.client(settings) as client:
        bucket = open_bucket(client, settings)
        stored = bucket.read(state_location(settings).name)
        now = context.clock.now()
        state = _readable(settings, stored, now) if stored else None
        if stored and state and _is_leased(context, settings, bucket, (stored, state)):
            return Exit.BUSY
        if stored and not state:
            corrupted = corrupted_at(Repair(client, bucket, settings, stored, now)) or now
            _let_runs_notice(context, bucket, settings, corrupted)
        context.print_status(_about_reset(settings, stored, state))
        if not (yes or click.confirm("Reset it?", err=True)):
            return Exit.WRONG
        copy = _copy(bucket, settings, stored, now)
        fresh = State(VERSION, last_run_id=_last_run(state), calls=state.calls if state else {})
        generation = _write(bucket, settings, fresh, stored)
    _print_reset(context, settings, copy, generation)
    return Exit.GOOD


def _print_reset(context: CommandContext, settings: Settings, copy: str | None, generation: int) -> None:
    if context.as_json:
        context.print_json({"reset": True, "copy": copy, "generation": generation})
    else:
        kept = f" The old state is in gs://{settings.bucket.name}/{copy}." if copy else ""
        context.out.print(safe_text(f"Reset: the next run starts like a first run.{kept}"), soft_wrap=True)


def _last_run(state: State | None) -> str:
    """The id of a dead run counts too: the names of its objects must not be used again."""
    return max(state.last_run_id, state.lease.run_id if state.lease else "") if state else ""


def _about_reset(settings: Settings, stored: Stored | None, state: State | None) -> str:
    where = f"gs://{settings.bucket.name}/{state_location(settings).name}"
    if stored is None:
        return f"{where} does not exist; an empty state will be written."
    if state is None:
        return f"{where} cannot be read; `tap-forensics state repair` may restore it. It will be reset."
    return (
        f"{where} will be reset. Forgotten: {many(len(state.backlog), 'threat')} of the backlog, "
        f"{many(len(state.gaps), 'gap')}, {many(len(state.collected), 'collected threat')}, and the cursor."
    )


def _copy(bucket: Bucket, settings: Settings, stored: Stored | None, now: datetime) -> str | None:
    """Beside the state, which no feed reads."""
    if stored is None:
        return None
    name = f"{state_location(settings).name}.before-reset-{now.strftime(RUN_ID_FORMAT)}"
    bucket.create(name, stored.data, _JSON)
    return name


def _require_yes(context: CommandContext, yes: bool) -> None:
    if context.as_json and not yes:
        raise click.UsageError("--json does not ask: give --yes too")


def _is_leased(
    context: CommandContext, settings: Settings, bucket: Bucket, found: tuple[Stored, State]
) -> bool:
    stored, state = found
    name = state_location(settings).name
    left = lease_left_seconds(bucket, name, stored.generation, state, settings.run.lease_seconds)
    if state.lease is None or left is None or left <= 0:
        return False
    until = context.clock.now() + timedelta(seconds=left)
    context.print_status(
        f"Run {state.lease.run_id} is at work and holds the lease until {iso(until)}: "
        "wait until it ends. Nothing was changed."
    )
    if context.as_json:
        context.print_json({"error": "busy", "lease": {"run_id": state.lease.run_id, "until": until}})
    return True


def _write(bucket: Bucket, settings: Settings, state: State, stored: Stored | None) -> int:
    """Replaces exactly what was read. Raises `StorageFailed` if another writer was faster."""
    name = state_location(settings).name
    try:
        return bucket.replace(name, encode(state), _JSON, stored.generation if stored else 0)
    except Conflict:
        raise StorageFailed(
            f"gs://{bucket.name}/{name} was changed in the meantime; nothing was written. Look again with "
            "`tap-forensics state show`"
        ) from None
