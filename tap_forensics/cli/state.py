"""`tap-forensics state show`, and the group of commands for the state object."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click
import msgspec

from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.state_commands import decoded, open_bucket, repair, reset
from tap_forensics.cli.terminal import ago, many, print_fields, safe_text
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
--json: {"name", "generation", "bytes", "state": THE DOCUMENT, as tap_forensics/storage/state.py describes it}
"""
)
@cli_command
def show(context: CommandContext) -> Exit:
    """Show what the state object contains. Ends with 1 if it cannot be read."""
    settings = context.settings(credentials=False)
    with context.client(settings) as client:
        stored = open_bucket(client, settings).read(state_location(settings).name)
    name = state_location(settings).name
    if stored is None:
        return _no_state(context, settings)
    document = decoded(settings, stored, context.clock.now())
    if context.as_json:
        about = {"name": name, "generation": stored.generation, "bytes": len(stored.data)}
        context.print_json(about | {"state": msgspec.to_builtins(document, str_keys=True)})
    else:
        title = f"gs://{settings.bucket.name}/{name}"
        print_fields(context.out, title, _rows(document, stored, context.clock.now()))
    return Exit.GOOD


def _no_state(context: CommandContext, settings: Settings) -> Exit:
    location = state_location(settings)
    if context.as_json:
        context.print_json({"name": location.name, "generation": 0, "bytes": 0, "state": None})
    else:
        before = location.legacy_key or location.previous_key
        also = f", and takes over gs://{settings.bucket.name}/{before} if that exists" if before else ""
        words = f"gs://{settings.bucket.name}/{location.name} does not exist: the first run writes it{also}"
        context.out.print(safe_text(words), soft_wrap=True)
    return Exit.GOOD


def _rows(state: State, stored: Stored, now: datetime) -> Iterator[tuple[str, str]]:
    lease = state.lease
    yield "object", f"generation {stored.generation}, {len(stored.data):,} bytes"
    yield "cursor", ago(state.last_event_time, now)
    yield "last run", state.last_run_id or "none"
    yield "lease", f"{lease.run_id}, for {lease.seconds} s after each commit" if lease else "none"
    yield "backlog", many(len(state.backlog), "threat")
    yield "collected", f"{many(len(state.collected), 'threat')}, not fetched again within DEDUP_HOURS"
    for name, pool in state.calls.items():
        yield f"{name} calls", f"{sum(pool.buckets.values()):,} counted"
    for gap in state.gaps[:_SHOWN]:
        yield "gap", f"{gap.window()}, {many(gap.attempts, 'failed attempt')}"
    for lost in state.lost[-_SHOWN:]:
        yield "lost", f"{iso(lost.start)}/{iso(lost.end)}: {lost.why}"
    if max(len(state.gaps), len(state.lost)) > _SHOWN:
        yield "", f"{len(state.gaps)} gaps and {len(state.lost)} lost intervals in total; --json has all"


state.add_command(repair)
state.add_command(reset)
