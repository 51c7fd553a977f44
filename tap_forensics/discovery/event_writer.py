"""Events, one window at a time → lines → objects. The event dedup index knows what was delivered before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from tap_forensics.config.state_location import StateLocation
from tap_forensics.context import RunContext
from tap_forensics.discovery.siem import Reading
from tap_forensics.records.event_lines import (
    EVENT_TYPES,
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
_INDEX_TYPE = "application/octet-stream"
# Our own fields and the list around an event need less than these 200 bytes.
_MAX_EVENT_BYTES = LONGEST_LINE_BYTES - 200


@dataclass
class EventWriter:
    """Writes the event lines of one run. `pending`: lines that are not written yet, with their fingerprints.

    `index` contains the pending events already, so it is only saved when nothing is pending. `generation` is
    the one it was read at, and `changed` says whether it must be saved.
    """

    run: RunContext
    index: EventIndex
    generation: int
    changed: bool = False
    pending: list[tuple[bytes, Fingerprint]] = field(default_factory=list)
    pending_bytes: int = 0

    def add(self, reading: Reading, window: Window) -> None:
        """Writes each event of a window that was not delivered in this version. Nothing is pending on return.

        Raises as the bucket does; the run must end then.
        """
        minute = event_dedup.last_minute(window)
        envelopes = {kind: envelope(kind, self.run.settings.events.shape) for kind in EVENT_TYPES}
        novelties = self._observe([event.fingerprint for event in reading.records], minute)
        for event, novelty in zip(reading.records, novelties, strict=True):
            self._add_event(event, novelty, envelopes[event.kind])
        self._flush()
        if len(self.index.entries) > event_dedup.MAX_ENTRIES:
            self._prune_index()

    def _observe(self, fingerprints: list[Fingerprint], minute: int) -> Iterator[Novelty | None]:
        """Adds the events of one response to the index, and yields for each whether it is new."""
        in_several_versions = event_dedup.side_by_side(fingerprints)
        for fingerprint in fingerprints:
            if versions := in_several_versions.get(fingerprint.key):
                yield event_dedup.observe_version(self.index, versions, *fingerprint, minute)
            else:
                yield event_dedup.observe(self.index, *fingerprint, minute)

    def _add_event(self, event: Event, novelty: Novelty | None, parts: Envelope) -> None:
        if novelty is None:
            self.run.stats.events_repeated += 1
            return
        record = bytes(event.record)
        if len(record) > _MAX_EVENT_BYTES:
            self.run.log.warning(
                "An event of %d bytes is too large for a line: its largest fields are left out", len(record)
            )
            record = truncate(record, _MAX_EVENT_BYTES, event.fingerprint)
        self.run.stats.events_updated += novelty is Novelty.UPDATE
        line = line_of(record, parts, update=novelty is Novelty.UPDATE)
        self.pending.append((line, event.fingerprint))
        self.pending_bytes += len(line) + 1
        if self.pending_bytes >= self.run.batch_bytes:
            self._flush()

    def _flush(self) -> None:
        """Writes the pending lines, except those that a zombie has written under the same name."""
        if not self.pending:
            return
        name = self._objects().write(self._remaining, self._record_object)
        if name:
            self._count(name)
        self.pending, self.pending_bytes = [], 0
        self.run.store.commit_if_due()

    def _remaining(self) -> bytes:
        return b"\n".join([*(line for line, _ in self.pending), b""]) if self.pending else b""

    def _record_object(self, data: bytes) -> None:
        """Indexes and counts an object that this process did not write; its events are no longer pending."""
        delivered = list(_fingerprints(data))
        now = self.run.clock.now()
        # An object has events of one response only, so two versions in it were shown side by side.
        for _ in self._observe(delivered, event_dedup.last_minute(Window(now, now))):
            pass
        known = set(delivered)
        self.pending = [entry for entry in self.pending if entry[1] not in known]
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

    def recover(self) -> int:
        """Indexes a dead run's objects that are not in the saved index. Returns how many there are."""
        lease = self.run.store.lease
        with self.run.store.transaction():
            lease.event_batches = self.index.batches if self.index.run_id == lease.run_id else 0
        return self._objects().recover(self._record_object)

    def save_index(self) -> None:
        """Saves the index before the lease is released. If it cannot, the lease is kept: then the run that
        takes over reads the objects again.

        Raises `LeaseLost` or `StorageFailed`.
        """
        if self.pending or self.run.store.in_doubt:
            self.run.store.in_doubt = True
        elif self.changed:
            self._prune_index()
            lease = self.run.store.lease
            self.index.run_id, self.index.batches = lease.run_id, lease.event_batches
            self.run.store.in_doubt = True
            self.run.store.ensure_lease()
            self._save()
            self.run.store.in_doubt = False

    def _save(self) -> None:
        name = index_name(self.run.store.location)
        try:
            self.run.bucket.replace(name, event_dedup.encode(self.index), _INDEX_TYPE, self.generation)
        except Conflict as conflict:
            # A zombie has saved its index; its entries are true. The commit checks that the lease is ours.
            self.run.store.commit()
            if conflict.stored:
                theirs = event_dedup.decode(conflict.stored.data, f"gs://{self.run.bucket.name}/{name}")
                self.index.entries = theirs.entries | self.index.entries
            generation = conflict.stored.generation if conflict.stored else 0
            self.run.bucket.replace(name, event_dedup.encode(self.index), _INDEX_TYPE, generation)

    def _prune_index(self) -> None:
        with self.run.store.transaction() as state:
            cursor, gaps = state.last_event_time, [gap.window() for gap in state.gaps]
        overlap = timedelta(minutes=self.run.settings.windows.overlap_minutes)
        if dropped := event_dedup.prune(self.index, cursor and cursor - overlap, gaps):
            self.run.log.warning(
                "The event dedup index is full: removed %d events early; they may be delivered twice",
                dropped,
            )


def open_events(run: RunContext) -> EventWriter:
    """A writer with the index from the bucket. Raises `StateUnreadable` or `StorageFailed`."""
    name = index_name(run.store.location)
    stored = run.bucket.read(name)
    index = event_dedup.decode(stored.data, f"gs://{run.bucket.name}/{name}") if stored else EventIndex()
    return EventWriter(run, index, stored.generation if stored else 0)


def index_name(location: StateLocation) -> str:
    """The object of the event dedup index, next to the working state."""
    return f"{location.name}.seen"


def _fingerprints(data: bytes) -> Iterator[Fingerprint]:
    """The fingerprint of each event line of an object; other lines are skipped."""
    for line in data.split(b"\n"):
        found = read_line(line)
        if found is None:
            continue
        kind, event = found
        try:
            yield stored_fingerprint(event) or to_event(kind, event, read_record(event)).fingerprint
        except UNREADABLE:
            continue
