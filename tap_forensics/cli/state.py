"""`tap-forensics state show`, and the group of what can be done with the state object."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click
import msgspec

from tap_forensics.cli.context import Desk, Exit, at_a_desk
from tap_forensics.cli.state_commands import decoded, open_bucket, repair, reset
from tap_forensics.cli.terminal import ago, facts, many, shown
from tap_forensics.clock import iso
from tap_forensics.config.settings import Settings
from tap_forensics.storage.bucket import Stored
from tap_forensics.storage.state import State
from tap_forensics.storage.state_store import state_place

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
@at_a_desk
def show(desk: Desk) -> Exit:
    """What the state object holds. Ends with 1 where it cannot be read."""
    settings = desk.settings(credentials=False)
    with desk.client(settings) as client:
        stored = open_bucket(client, settings).read(state_place(settings).name)
    name = state_place(settings).name
    if stored is None:
        return _no_state(desk, settings)
    held = decoded(settings, stored, desk.clock.now())
    if desk.as_json:
        about = {"name": name, "generation": stored.generation, "bytes": len(stored.data)}
        desk.give(about | {"state": msgspec.to_builtins(held, str_keys=True)})
    else:
        title = f"gs://{settings.gcs_bucket}/{name}"
        desk.out.print(facts(title, _rows(held, stored, desk.clock.now())))
    return Exit.GOOD


def _no_state(desk: Desk, settings: Settings) -> Exit:
    place = state_place(settings)
    if desk.as_json:
        desk.give({"name": place.name, "generation": 0, "bytes": 0, "state": None})
    else:
        before = place.handover or place.former
        also = f"; it takes over gs://{settings.gcs_bucket}/{before} where that is there" if before else ""
        words = f"gs://{settings.gcs_bucket}/{place.name} is not there: the first run makes it{also}"
        desk.out.print(shown(words), soft_wrap=True)
    return Exit.GOOD


def _rows(held: State, stored: Stored, now: datetime) -> Iterator[tuple[str, str]]:
    lease = held.lease
    yield "object", f"generation {stored.generation}, {len(stored.data):,} bytes"
    yield "cursor", ago(held.last_event_time, now)
    yield "last run", held.last_run_id or "none"
    yield "lease", f"{lease.run_id}, for {lease.seconds} s after each commit" if lease else "none"
    yield "backlog", many(len(held.backlog), "threat")
    yield "collected", f"{many(len(held.collected), 'threat')}, not asked for again within DEDUP_HOURS"
    for name, pool in held.calls.items():
        yield f"{name} calls", f"{sum(pool.buckets.values()):,} in the ledger"
    for gap in held.gaps[:_SHOWN]:
        yield "gap", f"{gap.window()}, {many(gap.attempts, 'failed attempt')}"
    for lost in held.lost[-_SHOWN:]:
        yield "lost", f"{iso(lost.start)}/{iso(lost.end)}: {lost.why}"
    if max(len(held.gaps), len(held.lost)) > _SHOWN:
        yield "", f"{len(held.gaps)} gaps and {len(held.lost)} lost intervals in all; --json has them"


state.add_command(repair)
state.add_command(reset)
