"""Reports → lines → batches → objects → state. One thread makes the lines, one uploads and commits."""

from __future__ import annotations

import contextvars
import io
import queue
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from tap_forensics.context import RunContext
from tap_forensics.forensics.responses import FetchedReports
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
from tap_forensics.storage.state import State

STEM = "tap_forensics"
_BATCH_SECONDS = 60.0
# A threat with more lines than this keeps its memory reserved until they are written: flush them at once.
_LARGE_BYTES = 2 * 1024 * 1024
_MAX_ID_CHARACTERS = 256
_NOTHING = msgspec.Raw()
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class ReportLines:
    """Where the lines of one report are in their batch. `campaign_id`: if it is a campaign's report."""

    campaign_id: str | None
    start: int
    stop: int


@dataclass(frozen=True)
class ThreatLines:
    """The reports of one response, which are all in one object. `release` is called when it is written.

    `campaign`: it was requested instead of the threat, which stays open.
    """

    threat_id: str
    campaign: str | None
    reports: list[ReportLines]
    release: Callable[[], None]


@dataclass
class Batch:
    """The content of one object: `lines` are its bytes, `count` is how many lines they are."""

    started_at_seconds: float
    entries: list[ThreatLines] = field(default_factory=list)
    lines: io.BytesIO = field(default_factory=io.BytesIO)
    count: int = 0

    def write(self, lines: Iterable[bytes], campaign_id: str | None) -> ReportLines:
        start = self.lines.tell()
        for line in lines:
            self.lines.write(line)
            self.count += 1
        return ReportLines(campaign_id, start, self.lines.tell())

    def without(self, threats: Container[str], campaigns: Container[str | None]) -> Batch:
        """A copy of this batch without these threats and without the reports of these campaigns."""
        rest, data = Batch(self.started_at_seconds), self.lines.getvalue()
        for entry in self.entries:
            if entry.campaign in campaigns if entry.campaign else entry.threat_id in threats:
                entry.release()
                continue
            reports = [
                rest.write(data[report.start : report.stop].splitlines(keepends=True), report.campaign_id)
                for report in entry.reports
                if report.campaign_id not in campaigns
            ]
            rest.entries.append(replace(entry, reports=reports))
        return rest


class EvidenceWriter:
    """Writes reports while the run fetches. After `close` all of them are in the bucket."""

    def __init__(self, run: RunContext) -> None:
        self._run, self._store, self._log, self._stats = run, run.store, run.log, run.stats
        self._once = run.settings.forensics.campaign_reports == "once"
        self._campaigns = set(run.store.lease.campaigns)
        self._objects = _evidence_objects(run)
        self._batch = Batch(run.clock.monotonic())
        self._batches: queue.Queue[Batch | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._closing = False
        context = contextvars.copy_context()
        self._uploader = threading.Thread(target=context.run, args=(self._upload_all,), daemon=True)
        self._uploader.start()

    def add(self, fetched: FetchedReports) -> None:
        """Adds the lines of one response to the batch, and flushes it if it is large or old enough.

        Empties `fetched.reports`, so the memory of the response is free, or its batch is flushed already.
        """
        start = self._batch.lines.tell()
        reports = [self._add_report(report, fetched) for report in fetched.reports]
        fetched.reports.clear()
        request, written = fetched.request, [report for report in reports if report]
        self._batch.entries.append(ThreatLines(request.threat_id, request.campaign, written, fetched.release))
        if self._batch.lines.tell() - start > _LARGE_BYTES:
            self._flush()
        else:
            fetched.release()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flushes a batch that is large or old enough. Raises the error that stopped the uploader, if any."""
        self._raise_failure()
        now = self._run.clock.monotonic()
        age = now - self._batch.started_at_seconds
        if self._batch.entries and (
            self._batch.lines.tell() >= self._run.batch_bytes or age >= _BATCH_SECONDS
        ):
            self._flush()
        elif not self._batch.entries:
            self._batch.started_at_seconds = now

    def close(self) -> None:
        """Writes the last batch and waits for the uploader. The next commit contains it.

        Raises the error that stopped the uploader, if any.
        """
        self._closing = True
        if self._batch.entries:
            self._flush()
        self._put(None)
        self._uploader.join()
        self._raise_failure()

    def _flush(self) -> None:
        self._put(self._batch)
        self._batch = Batch(self._run.clock.monotonic())

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

    def _add_report(self, report: Fields | msgspec.Raw, fetched: FetchedReports) -> ReportLines | None:
        """None if this is not a valid report, or a campaign's report that this run has already written."""
        try:
            return self._write_report(report, fetched)
        except RecursionError:
            self._log.error(
                "Threat %s: skipped a report that is nested too deep to be read",
                escape_unprintable(fetched.request.threat_id),
            )
            return None

    def _write_report(self, report: Fields | msgspec.Raw, fetched: FetchedReports) -> ReportLines | None:
        request = fetched.request
        threat = escape_unprintable(request.threat_id)
        fields = report if isinstance(report, dict) else decode_object(report)
        if fields is None:
            self._stats.odd_entries += 1
            self._log.warning("Threat %s: skipped a report that is not a JSON object", threat)
            return None
        campaign_id = _campaign_id(fields)
        if campaign_id and self._once and campaign_id in self._campaigns:
            return None
        about = request.threat_id
        if request.campaign and not campaign_id:
            # Whoever takes over closes the threat of this line: it must not be the member that still waits.
            about = _short_id(fields) or request.campaign
        provenance = Provenance(about, campaign_id or request.linked_campaign, fetched.generated)
        shape = self._run.settings.forensics.record_shape
        split = report_lines(fields, provenance, shape, LONGEST_LINE_BYTES)
        if campaign_id:
            self._campaigns.add(campaign_id)
        for what in split.cut:
            self._log.warning(
                "Threat %s: %s is too large for a line and is left out", threat, escape_unprintable(what)
            )
        self._stats.reports += 1
        return self._batch.write(split.lines, campaign_id)

    def _upload_all(self) -> None:
        try:
            while (batch := self._batches.get()) is not None:
                self._upload(batch)
                del batch  # frees its lines before the wait for the next one
        except BaseException as error:  # noqa: BLE001 - carried to the run's thread, which raises it
            self._failure = error

    def _upload(self, batch: Batch) -> None:
        """Writes the object, then records its threats in the state and commits."""

        def remaining() -> bytes:
            nonlocal batch
            batch = self._without_delivered(batch)
            return batch.lines.getvalue()

        name = self._objects.write(remaining, lambda data: record_object(self._run, data))
        if name:
            self._count(name, batch)
        self._record(batch)
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
        """The batch without what another run's object under one of our names already contains."""
        requested = {entry.campaign for entry in batch.entries if entry.campaign}
        with self._store.transaction() as state:
            campaigns = set(self._store.lease.campaigns) if self._once else set()
            threats = {entry.threat_id for entry in batch.entries if entry.threat_id in state.collected}
            campaigns.update(name for name in self._store.lease.campaigns if name in requested)
        self._campaigns.update(campaigns)
        written = (report.campaign_id for entry in batch.entries for report in entry.reports)
        repeated = threats or not campaigns.isdisjoint(written) or not campaigns.isdisjoint(requested)
        return batch.without(threats, campaigns) if repeated else batch

    def _record(self, batch: Batch) -> None:
        """Counts the object and its threats in one transaction: a commit between the two would hide the
        object from a takeover.
        """
        with self._store.transaction() as state:
            self._store.lease.batches += bool(batch.count)
            for entry in batch.entries:
                campaigns = [report.campaign_id for report in entry.reports if report.campaign_id]
                threat_id = None if entry.campaign else entry.threat_id
                delivered = {*campaigns, *filter(None, [entry.campaign])}
                _mark_delivered(self._run, state, threat_id, sorted(delivered))
                self._stats.threats_fetched += not entry.campaign
                self._stats.campaign_reports += len(campaigns)
                self._stats.threat_reports += len(entry.reports) - len(campaigns)


def _evidence_objects(run: RunContext) -> NumberedObjects:
    prefix, store = run.settings.bucket.prefix, run.store
    return NumberedObjects(store, run.bucket, run.log, prefix, STEM, lambda: store.lease.batches)


def recover_objects(run: RunContext) -> int:
    """Records a dead run's objects that are not in its last commit. Returns how many there are."""
    return _evidence_objects(run).recover(lambda data: record_object(run, data))


def record_object(run: RunContext, data: bytes) -> None:
    """Counts one evidence object that this process did not write, and marks its threats as delivered."""
    with run.store.transaction() as state:
        for delivered in delivered_in(data):
            _mark_delivered(run, state, delivered.threat_id, delivered.campaigns)
        run.store.lease.batches += 1


def _mark_delivered(run: RunContext, state: State, threat_id: str | None, campaigns: list[str]) -> None:
    now = run.clock.now()
    if threat_id:
        mark_collected(state, threat_id, now)
    mark_campaigns(state, campaigns, now)
    run.store.lease.campaigns.extend(campaigns)


class _Line(msgspec.Struct, rename={"threat_id": "_threatId"}):
    threat_id: str
    scope: msgspec.Raw = _NOTHING
    id: msgspec.Raw = _NOTHING
    reports: list[msgspec.Raw] | None = None


def _campaign_id(fields: Fields) -> str | None:
    """The campaign of a campaign's report; None for any other report."""
    if bytes(fields.get("scope", _NOTHING)) != b'"CAMPAIGN"':
        return None
    return _short_id(fields)


def _short_id(fields: Fields) -> str | None:
    name = decode_str(fields.get("id", _NOTHING))
    return name if name and len(name) <= _MAX_ID_CHARACTERS else None


class Delivered(NamedTuple):
    """What a line delivers: a threat's own report, or those of campaigns."""

    threat_id: str | None
    campaigns: list[str]


def delivered_in(data: bytes) -> Iterator[Delivered]:
    """What each line of an evidence object delivers; other lines are skipped.

    A campaign's report does not close the threat of its line: it may have been requested by campaignId.
    """
    for line in data.splitlines():
        try:
            fields = msgspec.json.decode(line, type=_Line)
            reports = [decode_object(report) for report in fields.reports or ()]
            reports = reports or [{"scope": fields.scope, "id": fields.id}]
            campaigns = [_campaign_id(report) for report in reports if report]
        except _UNREADABLE:
            continue
        own = not campaigns or None in campaigns
        yield Delivered(fields.threat_id if own else None, [name for name in campaigns if name])
