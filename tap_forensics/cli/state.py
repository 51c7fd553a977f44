"""`tap-forensics state show`, and the group of what can be done with the state object."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click
import msgspec

from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.state_commands import decoded, open_bucket, repair, reset
from tap_forensics.cli.terminal import ago, fields, many, safe_text
from tap_forensics.clock import iso
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.storage.bucket import Stored
from tap_forensics.storage.state import State

_SHOWN = 10


@click.group(epilog="\b\nExample:\n  tap-forensics state show")
def state() -> None:
    """Show the state object, repair it, or start anew. TAP's credentials are not needed."""


@state.command(
    epilog="""\b
Example:
  tap-forensics state show --json | jq .state.gaps
\b
--json: {"name", "generation", "bytes", "state": THE DOCUMENT, as tap_forensics/state.py describes it}
"""
)
@cli_command
def show(context: CommandContext) -> Exit:
    """What the state object holds. Ends with 1 where it cannot be read."""
    settings = context.settings(credentials=False)
    with context.client(settings) as client:
        stored = open_bucket(client, settings).read(state_location(settings).name)
    name = state_location(settings).name
    if stored is None:
        return _no_state(context, settings)
    store = decoded(settings, stored, context.clock.now())
    if context.as_json:
        about = {"name": name, "generation": stored.generation, "bytes": len(stored.data)}
        context.print_json(about | {"state": msgspec.to_builtins(store, str_keys=True)})
    else:
        title = f"gs://{settings.bucket.name}/{name}"
        context.out.print(fields(title, _rows(store, stored, context.clock.now())))
    return Exit.GOOD


def _no_state(context: CommandContext, settings: Settings) -> Exit:
    location = state_location(settings)
    if context.as_json:
        context.print_json({"name": location.name, "generation": 0, "bytes": 0, "state": None})
    else:
        before = location.legacy_key or location.previous_key
        also = f"; it takes over gs://{settings.bucket.name}/{before} where that is there" if before else ""
        words = f"gs://{settings.bucket.name}/{location.name} is not there: the first run makes it{also}"
        context.out.print(safe_text(words), soft_wrap=True)
    return Exit.GOOD


def _rows(store: State, stored: Stored, now: datetime) -> Iterator[tuple[str, str]]:
    lease = store.lease
    yield "object", f"generation {stored.generation}, {len(stored.data):,} bytes"
    yield "cursor", ago(store.last_event_time, now)
    yield "last run", store.last_run_id or "none"
    yield "lease", f"{lease.run_id}, for {lease.seconds} s after each commit" if lease else "none"
    yield "backlog", many(len(store.backlog), "threat")
    yield "collected", f"{many(len(store.collected), 'threat')}, not asked for again within DEDUP_HOURS"
    for name, pool in store.calls.items():
        yield f"{name} calls", f"{sum(pool.buckets.values()):,} in the ledger"
    for gap in store.gaps[:_SHOWN]:
        yield "gap", f"{gap.window()}, {many(gap.attempts, 'failed attempt')}"
    for lost in store.lost[-_SHOWN:]:
        yield "lost", f"{iso(lost.start)}/{iso(lost.end)}: {lost.why}"
    if max(len(store.gaps), len(store.lost)) > _SHOWN:
        yield "", f"{len(store.gaps)} gaps and {len(store.lost)} lost intervals in all; --json has them"


state.add_command(repair)
state.add_command(reset)
