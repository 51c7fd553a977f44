"""Events of one window after the other → lines → objects; what came before is told by the event_dedup."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from tap_forensics.config.state_location import StateLocation
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
from tap_forensics.storage import event_dedup
from tap_forensics.storage.bucket import Conflict
from tap_forensics.storage.event_dedup import EventIndex, Novelty
from tap_forensics.storage.numbered_objects import NumberedObjects
from tap_forensics.tap.windows import Window

STEM = "tap_siem_events"
_MEMORY_TYPE = "application/octet-stream"
# Our own fields and the list around an event need less than this.
_LONGEST_EVENT_BYTES = LONGEST_LINE_BYTES - 200


@dataclass
class EventWriter:
    """One run's event lines. `pending` are lines not durable yet, with what the memory says of each.

    What the memory says of pending lines is not true yet: it is kept only once there are none.
    """

    run: RunContext
    index: EventIndex
    generation: int
    changed: bool = False
    pending: list[tuple[bytes, Fingerprint]] = field(default_factory=list)
    pending_bytes: int = 0

    def add(self, reading: Reading, window: Window) -> None:
        """Writes each event of a window that was not delivered in this version; all are durable then.

        Raises as the bucket does; the run must not go on then.
        """
        minute = event_dedup.last_minute(window)
        around = {kind: envelope(kind, self.run.settings.events.shape) for kind in KINDS}
        several = event_dedup.side_by_side(event.fingerprint for event in reading.records)
        for event in reading.records:
            shown = several.get(event.fingerprint.key)
            if shown:
                news = event_dedup.observe_version(self.index, shown, *event.fingerprint, minute)
            else:
                news = event_dedup.observe(self.index, *event.fingerprint, minute)
            self._take(event, news, around[event.kind])
        self._write()
        if len(self.index.entries) > event_dedup.MAX_ENTRIES:
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
        """Makes the pending lines durable, less those that a zombie wrote under the name."""
        if not self.pending:
            return
        name = self._objects().write(self._remaining, self._learn_zombie)
        if name:
            self._count(name)
        self.pending, self.pending_bytes = [], 0
        self.run.store.commit_if_due()

    def _remaining(self) -> bytes:
        return b"\n".join([*(line for line, _ in self.pending), b""]) if self.pending else b""

    def _learn_zombie(self, data: bytes) -> None:
        theirs = self._learn(data)
        self.pending = [entry for entry in self.pending if entry[1] not in theirs]
        self._count_object()

    def _objects(self) -> NumberedObjects:
        run, prefix = self.run, self.run.settings.events.prefix or ""
        return NumberedObjects(
            run.store, run.bucket, run.log, prefix, STEM, lambda: run.store.lease.event_batches
        )

    def _count_object(self) -> None:
        with self.run.store.transaction():
            self.run.store.lease.event_batches += 1
        self.changed = True

    def _count(self, name: str) -> None:
        self._count_object()
        self.run.stats.event_objects += 1
        self.run.stats.event_lines += len(self.pending)
        self.run.stats.event_bytes += sum(len(line) + 1 for line, _ in self.pending)
        self.run.log.info("Wrote %d events to gs://%s/%s", len(self.pending), self.run.bucket.name, name)

    def _learn(self, data: bytes) -> set[Fingerprint]:
        """Remembers the events of an object that this run did not write; gives their fingerprints."""
        found = list(_fingerprints(data))
        now = self.run.clock.now()
        for known_by in found:
            event_dedup.observe(self.index, *known_by, event_dedup.last_minute(Window(now, now)))
        return set(found)

    def recover(self) -> int:
        """Learns a dead run's objects that the index does not know of; returns how many there were."""
        lease = self.run.store.lease
        with self.run.store.transaction():
            lease.event_batches = self.index.batches if self.index.run_id == lease.run_id else 0
        return self._objects().recover(self._learn_zombie)

    def save_index(self) -> None:
        """Before the lease is given back. Where it cannot be, the lease stays: who takes over learns it anew.

        Raises `LeaseLost` or `StorageFailed`.
        """
        if self.pending or self.run.store.in_doubt:
            self.run.store.in_doubt = True
        elif self.changed:
            self._forget()
            self.index.run_id, self.index.batches = (
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
            self.run.bucket.replace(name, event_dedup.encode(self.index), _MEMORY_TYPE, self.generation)
        except Conflict as conflict:
            # A run that slept through its lease came between; what it knows is true. Is the lease ours?
            self.run.store.commit()
            if conflict.stored:
                theirs = event_dedup.decode(conflict.stored.data, f"gs://{self.run.bucket.name}/{name}")
                self.index.entries = theirs.entries | self.index.entries
            generation = conflict.stored.generation if conflict.stored else 0
            self.run.bucket.replace(name, event_dedup.encode(self.index), _MEMORY_TYPE, generation)

    def _forget(self) -> None:
        with self.run.store.transaction() as state:
            cursor, gaps = state.last_event_time, [gap.window() for gap in state.gaps]
        overlap = timedelta(minutes=self.run.settings.windows.overlap_minutes)
        if over := event_dedup.prune(self.index, cursor, overlap, gaps):
            self.run.log.warning("%d delivered events had to be forgotten early: they may come again", over)


def open_events(run: RunContext) -> EventWriter:
    """With the memory as it is in the bucket. Raises `StateUnreadable` or `StorageFailed`."""
    name = index_name(run.store.location)
    stored = run.bucket.read(name)
    index = event_dedup.decode(stored.data, f"gs://{run.bucket.name}/{name}") if stored else EventIndex()
    return EventWriter(run, index, stored.generation if stored else 0)


def index_name(place: StateLocation) -> str:
    """Beside the working state."""
    return f"{place.name}.seen"


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
