"""Outcomes → lines → batches → objects → state. One thread makes lines, one uploads and commits."""

from __future__ import annotations

import contextvars
import io
import queue
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from tap_forensics.context import RunContext
from tap_forensics.forensics.workers import Fetched
from tap_forensics.log import escape_unprintable
from tap_forensics.records.ndjson import (
    LONGEST_LINE_BYTES,
    Fields,
    Provenance,
    decode_object,
    decode_str,
    report_lines,
)
from tap_forensics.storage.numbered_objects import NumberedObjects
from tap_forensics.storage.open_items import mark_campaigns, mark_collected

STEM = "tap_forensics"
_BATCH_SECONDS = 60.0
# Lines above this keep the memory of their answer until they are written, and so wait for no others.
_LARGE_BYTES = 2 * 1024 * 1024
_LONGEST_ID = 256
_NOTHING = msgspec.Raw()
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class Written:
    """Where one report's lines lie in its batch; `campaign_id` where it is a campaign's."""

    campaign_id: str | None
    start: int
    stop: int


@dataclass(frozen=True)
class Entry:
    """One threat's reports: all of them lie in one object. `release` is called when they do."""

    threat_id: str
    reports: list[Written]
    release: Callable[[], None]


@dataclass
class Batch:
    """What becomes one object: `lines` holds its bytes, `count` tells how many lines they are."""

    begun_at_seconds: float
    entries: list[Entry] = field(default_factory=list)
    lines: io.BytesIO = field(default_factory=io.BytesIO)
    count: int = 0

    def write(self, lines: Iterable[bytes], campaign_id: str | None) -> Written:
        start = self.lines.tell()
        for line in lines:
            self.lines.write(line)
            self.count += 1
        return Written(campaign_id, start, self.lines.tell())

    def without(self, threats: Container[str], campaigns: Container[str | None]) -> Batch:
        """A batch of the entries that are not of these threats, less the reports of these campaigns."""
        left, data = Batch(self.begun_at_seconds), self.lines.getvalue()
        for entry in self.entries:
            if entry.threat_id in threats:
                entry.release()
                continue
            kept = [report for report in entry.reports if report.campaign_id not in campaigns]
            moved = [
                left.write(data[r.start : r.stop].splitlines(keepends=True), r.campaign_id) for r in kept
            ]
            left.entries.append(Entry(entry.threat_id, moved, entry.release))
        return left


class EvidenceWriter:
    """Takes outcomes while the run fetches; `finish` makes sure that all of them lie in the bucket."""

    def __init__(self, run: RunContext) -> None:
        self._run, self._store, self._settings = run, run.store, run.settings
        self._clock, self._log, self._stats = run.clock, run.log, run.stats
        self._once = run.settings.forensics.campaign_reports == "once"
        self._campaigns = set(run.store.lease.campaigns)
        self._objects = evidence_objects(run)
        self._batch = Batch(run.clock.monotonic())
        self._batches: queue.Queue[Batch | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._closing = False
        context = contextvars.copy_context()
        self._uploader = threading.Thread(target=context.run, args=(self._upload_all,), daemon=True)
        self._uploader.start()

    def add(self, fetched: Fetched, campaign: str | None) -> None:
        """Makes the lines of one threat; hands the batch over when it is large or old enough.

        The answer is used up: most of its memory is free then, and no batch that waits holds any of it.
        """
        begun = self._batch.lines.tell()
        reports = [self._written(report, fetched, campaign) for report in fetched.reports]
        fetched.reports.clear()
        self._batch.entries.append(Entry(fetched.threat_id, [r for r in reports if r], fetched.release))
        if self._batch.lines.tell() - begun > _LARGE_BYTES:
            self._flush()
        else:
            fetched.release()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Raises what stopped the uploader, if anything did."""
        self._raise_failure()
        age = self._clock.monotonic() - self._batch.begun_at_seconds
        if self._batch.entries and (
            self._batch.lines.tell() >= self._run.batch_bytes or age >= _BATCH_SECONDS
        ):
            self._flush()
        elif not self._batch.entries:
            self._batch.begun_at_seconds = self._clock.monotonic()

    def close(self) -> None:
        """Writes what is left and waits for it; the release that follows commits it. Raises what stopped
        the uploader.
        """
        self._closing = True
        if self._batch.entries:
            self._flush()
        self._put(None)
        self._uploader.join()
        self._raise_failure()

    def _flush(self) -> None:
        self._put(self._batch)
        self._batch = Batch(self._clock.monotonic())

    def _put(self, batch: Batch | None) -> None:
        while self._uploader.is_alive():
            try:
                self._batches.put(batch, timeout=0.2)
            except queue.Full:
                continue
            return

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    def _written(
        self, report: Fields | msgspec.Raw, fetched: Fetched, campaign: str | None
    ) -> Written | None:
        """None for what is no report, and for a campaign's report that this run has written."""
        try:
            return self._lines_of(report, fetched, campaign)
        except RecursionError:
            self._log.error(
                "Threat %s: a report is nested too deep to be read", escape_unprintable(fetched.threat_id)
            )
            return None

    def _lines_of(
        self, report: Fields | msgspec.Raw, fetched: Fetched, campaign: str | None
    ) -> Written | None:
        fields = report if isinstance(report, dict) else decode_object(report)
        if fields is None:
            self._stats.odd_entries += 1
            self._log.warning(
                "Threat %s: a report that is no JSON object", escape_unprintable(fetched.threat_id)
            )
            return None
        campaign_id = _campaign_id(fields)
        if campaign_id and self._once and campaign_id in self._campaigns:
            return None
        provenance = Provenance(fetched.threat_id, campaign_id or campaign, fetched.generated)
        made = report_lines(fields, provenance, self._settings.forensics.record_shape, LONGEST_LINE_BYTES)
        if campaign_id:
            self._campaigns.add(campaign_id)
        for cut in made.cut:
            self._log.warning(
                "Threat %s: %s was too large", escape_unprintable(fetched.threat_id), escape_unprintable(cut)
            )
        self._stats.reports += 1
        return self._batch.write(made.lines, campaign_id)

    def _upload_all(self) -> None:
        try:
            while (batch := self._batches.get()) is not None:
                self._deliver(batch)
                del batch
        except BaseException as error:  # noqa: BLE001 - carried to the run's thread, which raises it
            self._failure = error

    def _deliver(self, batch: Batch) -> None:
        """Writes the object, then closes its threats in the state and commits."""

        def remaining() -> bytes:
            nonlocal batch
            batch = self._without_delivered(batch)
            return batch.lines.getvalue()

        name = self._objects.write(remaining, lambda data: record_object(self._run, data))
        if name:
            self._count(name, batch)
        self._settle(batch)
        for entry in batch.entries:
            entry.release()
        if not self._closing:
            self._store.commit_if_due()

    def _count(self, name: str, batch: Batch) -> None:
        self._stats.objects += 1
        self._stats.lines += batch.count
        self._stats.lines_bytes += batch.lines.tell()
        self._log.info("Wrote %d records to gs://%s/%s", batch.count, self._run.bucket.name, name)

    def _without_delivered(self, batch: Batch) -> Batch:
        """The batch less what another run's object, found under one of our names, holds already."""
        with self._store.transaction() as state:
            campaigns = set(self._store.lease.campaigns) if self._once else set()
            found = {e.threat_id for e in batch.entries if e.threat_id in state.collected}
        self._campaigns.update(campaigns)
        if not found and not any(r.campaign_id in campaigns for e in batch.entries for r in e.reports):
            return batch
        return batch.without(found, campaigns)

    def _settle(self, batch: Batch) -> None:
        """Number and threats at once: a commit between them would hide the object from a takeover."""
        with self._store.transaction() as state:
            self._store.lease.batches += bool(batch.count)
            for entry in batch.entries:
                campaigns = [report.campaign_id for report in entry.reports if report.campaign_id]
                mark_collected(state, entry.threat_id, self._clock.now())
                mark_campaigns(state, campaigns, self._clock.now())
                self._store.lease.campaigns.extend(campaigns)
            self._stats.threats_fetched += len(batch.entries)


def evidence_objects(run: RunContext) -> NumberedObjects:
    prefix, store = run.settings.bucket.prefix, run.store
    return NumberedObjects(store, run.bucket, run.log, prefix, STEM, lambda: store.lease.batches)


def recover_objects(run: RunContext) -> int:
    """Counts a dead run's objects that its last commit did not know; returns how many there were."""
    return evidence_objects(run).recover(lambda data: record_object(run, data))


def record_object(run: RunContext, data: bytes) -> None:
    """Settles the threats and campaigns of one evidence object as this run's next batch."""
    with run.store.transaction() as state:
        for threat_id, campaigns in delivered_in(data):
            mark_collected(state, threat_id, run.clock.now())
            mark_campaigns(state, campaigns, run.clock.now())
            run.store.lease.campaigns.extend(campaigns)
        run.store.lease.batches += 1


class _Line(msgspec.Struct, rename={"threat_id": "_threatId"}):
    threat_id: str
    scope: msgspec.Raw = _NOTHING
    id: msgspec.Raw = _NOTHING
    reports: list[msgspec.Raw] | None = None


def _campaign_id(fields: Fields) -> str | None:
    """Of a campaign's report."""
    if bytes(fields.get("scope", _NOTHING)) != b'"CAMPAIGN"':
        return None
    campaign = decode_str(fields.get("id", _NOTHING))
    return campaign if campaign and len(campaign) <= _LONGEST_ID else None


def delivered_in(data: bytes) -> Iterator[tuple[str, list[str]]]:
    """The threat and the campaigns of each line of an evidence object; what is none is passed over."""
    for line in data.splitlines():
        try:
            read = msgspec.json.decode(line, type=_Line)
            reports = [decode_object(report) for report in read.reports or ()]
            reports = reports or [{"scope": read.scope, "id": read.id}]
            campaigns = [campaign for fields in reports if fields and (campaign := _campaign_id(fields))]
        except _UNREADABLE:
            continue
        yield read.threat_id, campaigns
