"""Events of one window after the other → lines → objects; what came before is told by the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from tap_forensics.config.settings import Settings
from tap_forensics.context import RunContext
from tap_forensics.discovery.siem import Reading
from tap_forensics.records.event_lines import (
    KINDS,
    UNREADABLE,
    Envelope,
    Event,
    Fingerprint,
    envelope,
    line_of,
    read_line,
    read_record,
    stored_fingerprint,
    to_event,
    truncate,
)
from tap_forensics.records.ndjson import LONGEST_LINE_BYTES
from tap_forensics.storage import event_dedup as memory
from tap_forensics.storage.bucket import Conflict
from tap_forensics.storage.event_dedup import EventIndex, Novelty
from tap_forensics.storage.numbered_objects import object_name, write_object
from tap_forensics.storage.state_store import StateLocation
from tap_forensics.tap.windows import Window

_STEM = "tap_siem_events"
_MEMORY_TYPE = "application/octet-stream"
# Our own fields and the list around an event need less than this.
_LONGEST_EVENT_BYTES = LONGEST_LINE_BYTES - 200


@dataclass
class EventWriter:
    """One run's event lines. `pending` are lines not durable yet, with what the memory says of each.

    What the memory says of pending lines is not true yet: it is kept only once there are none.
    """

    run: RunContext
    seen: EventIndex
    generation: int
    changed: bool = False
    pending: list[tuple[bytes, Fingerprint]] = field(default_factory=list)
    pending_bytes: int = 0

    def add(self, reading: Reading, window: Window) -> None:
        """Writes each event of a window that was not delivered in this version; all are durable then.

        Raises as the bucket does; the run must not go on then.
        """
        minute = memory.last_minute(window)
        around = {kind: envelope(kind, self.run.settings.events_shape) for kind in KINDS}
        several = memory.side_by_side(event.fingerprint for event in reading.records)
        for event in reading.records:
            shown = several.get(event.fingerprint.key)
            if shown:
                news = memory.observe_version(self.seen, shown, *event.fingerprint, minute)
            else:
                news = memory.observe(self.seen, *event.fingerprint, minute)
            self._take(event, news, around[event.kind])
        self._write()
        if len(self.seen.entries) > memory.MAX_ENTRIES:
            self._forget()

    def _take(self, event: Event, news: Novelty | None, around: Envelope) -> None:
        if news is None:
            self.run.stats.events_repeated += 1
            return
        record = bytes(event.record)
        if len(record) > _LONGEST_EVENT_BYTES:
            self.run.log.warning(
                "An event of %d bytes was too large: its largest fields were cut", len(record)
            )
            record = truncate(record, _LONGEST_EVENT_BYTES, event.fingerprint)
        self.run.stats.events_updated += news is Novelty.UPDATE
        line = line_of(record, around, update=news is Novelty.UPDATE)
        self.pending.append((line, event.fingerprint))
        self.pending_bytes += len(line) + 1
        if self.pending_bytes >= self.run.batch_bytes:
            self._write()

    def _write(self) -> None:
        """Makes the pending lines durable, less those that a sleeper wrote under the name."""
        if not self.pending:
            return
        self.run.store.ensure_lease()
        while self.pending:
            name = _name(
                self.run.settings, self.run.store.lease.run_id, self.run.store.lease.event_batches + 1
            )
            data = b"\n".join([*(line for line, _ in self.pending), b""])
            stored = write_object(self.run.store, self.run.bucket, name, data)
            self._count_object()
            if stored is None:
                self._written(name, len(data))
                break
            theirs = self._learn(stored)
            self.pending = [entry for entry in self.pending if entry[1] not in theirs]
            self.run.log.warning("Another run had written this batch's object; going on with the next name")
        self.pending_bytes = 0
        self.run.store.commit_if_due()

    def _count_object(self) -> None:
        with self.run.store.transaction():
            self.run.store.lease.event_batches += 1
        self.changed = True

    def _written(self, name: str, size: int) -> None:
        self.run.stats.event_objects += 1
        self.run.stats.event_lines += len(self.pending)
        self.run.stats.event_bytes += size
        self.run.log.info("Wrote %d events to gs://%s/%s", len(self.pending), self.run.bucket.name, name)
        self.pending = []

    def _learn(self, data: bytes) -> set[Fingerprint]:
        """Remembers the events of an object that this run did not write; gives their fingerprints."""
        found = list(_fingerprints(data))
        now = self.run.clock.now()
        for known_by in found:
            memory.observe(self.seen, *known_by, memory.last_minute(Window(now, now)))
        return set(found)

    def recover(self) -> int:
        """Learns a dead run's objects that the memory does not know of; gives how many there were.

        They were written one after the other, so the first missing name ends the search.
        """
        lease, number = self.run.store.lease, 0
        known = self.seen.batches if self.seen.run_id == lease.run_id else 0
        while stored := self.run.bucket.read_ever(_name(self.run.settings, lease.run_id, known + number + 1)):
            self._learn(stored.data)
            number += 1
        with self.run.store.transaction():
            lease.event_batches = known + number
        self.changed = self.changed or number > 0
        return number

    def save_index(self) -> None:
        """Before the lease is given back. Where it cannot be, the lease stays: who takes over learns it anew.

        Raises `LeaseLost` or `StorageFailed`.
        """
        if self.pending or self.run.store.in_doubt:
            self.run.store.in_doubt = True
        elif self.changed:
            self._forget()
            self.seen.run_id, self.seen.batches = (
                self.run.store.lease.run_id,
                self.run.store.lease.event_batches,
            )
            self.run.store.in_doubt = True
            self.run.store.ensure_lease()
            self._save()
            self.run.store.in_doubt = False

    def _save(self) -> None:
        name = index_name(self.run.store.location)
        try:
            self.run.bucket.replace(name, memory.encode(self.seen), _MEMORY_TYPE, self.generation)
        except Conflict as conflict:
            # A run that slept through its lease came between; what it knows is true. Is the lease ours?
            self.run.store.commit()
            if conflict.stored:
                theirs = memory.decode(conflict.stored.data, f"gs://{self.run.bucket.name}/{name}")
                self.seen.entries = theirs.entries | self.seen.entries
            generation = conflict.stored.generation if conflict.stored else 0
            self.run.bucket.replace(name, memory.encode(self.seen), _MEMORY_TYPE, generation)

    def _forget(self) -> None:
        with self.run.store.transaction() as state:
            cursor, gaps = state.last_event_time, [gap.window() for gap in state.gaps]
        overlap = timedelta(minutes=self.run.settings.overlap_minutes)
        if over := memory.prune(self.seen, cursor, overlap, gaps):
            self.run.log.warning("%d delivered events had to be forgotten early: they may come again", over)


def open_events(run: RunContext) -> EventWriter:
    """With the memory as it is in the bucket. Raises `StateUnreadable` or `StorageFailed`."""
    name = index_name(run.store.location)
    stored = run.bucket.read(name)
    index = memory.decode(stored.data, f"gs://{run.bucket.name}/{name}") if stored else EventIndex()
    return EventWriter(run, index, stored.generation if stored else 0)


def index_name(place: StateLocation) -> str:
    """Beside the working state."""
    return f"{place.name}.seen"


def _name(settings: Settings, run_id: str, number: int) -> str:
    return object_name(settings.events_prefix or "", run_id, number, _STEM)


def _fingerprints(data: bytes) -> Iterator[Fingerprint]:
    """Of each line of an object of ours; other lines are passed over."""
    for line in data.split(b"\n"):
        found = read_line(line)
        if found is None:
            continue
        kind, event = found
        try:
            yield stored_fingerprint(event) or to_event(kind, event, read_record(event)).fingerprint
        except UNREADABLE:
            continue
