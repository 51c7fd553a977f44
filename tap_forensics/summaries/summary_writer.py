"""Threat summaries → lines → objects. TAP's own fields are unchanged; each line adds `_threatId`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from tap_forensics.context import RunContext
from tap_forensics.errors import TooLarge, Unavailable
from tap_forensics.records.ndjson import (
    LONGEST_LINE_BYTES,
    Fields,
    decode_object,
    decode_str,
    sanitize_utf8,
    without_depths,
)
from tap_forensics.storage.numbered_objects import NumberedObjects
from tap_forensics.storage.open_items import mark_summarized
from tap_forensics.tap.client import TapResponse
from tap_forensics.workers import Fetched, Request, Skipped

STEM = "tap_threat_summaries"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# TAP's own summaries have three levels. A deeper line may be readable to the one who wrote it only.
_MAX_DEPTH = 100
# Matching this many brackets takes about a second.
_MAX_BRACKETS = 1_000_000


@dataclass(frozen=True)
class FetchedSummary(Fetched):
    """The line of one threat, with its line end."""

    line: bytes


def parse_summary(response: TapResponse, request: Request) -> FetchedSummary | Skipped:
    """Raises `Unavailable` for a body that is not a summary, `TooLarge` if its line would be too long."""
    if response.status == 204:
        return Skipped(request)
    fields = _fields(response.body)
    if fields is None or not _is_about(fields, request.threat_id):
        raise Unavailable("the response is not the threat summary that TAP documents")
    line = msgspec.json.encode({**fields, "_threatId": request.threat_id}) + b"\n"
    if len(line) > LONGEST_LINE_BYTES:
        raise TooLarge(f"a threat summary with {len(line)} bytes is too large for a line")
    return FetchedSummary(request, response.release, line)


def _fields(body: bytes) -> Fields | None:
    try:
        # A summary is one object on one line, whatever blanks TAP puts between its values.
        line = msgspec.json.format(sanitize_utf8(body), indent=-1)
        return None if _is_nested_too_deep(line) else decode_object(msgspec.Raw(line))
    except _UNREADABLE:
        return None


def _is_nested_too_deep(line: bytes) -> bool:
    brackets = line.count(b"[") + line.count(b"{")
    return brackets > _MAX_DEPTH and (brackets > _MAX_BRACKETS or without_depths(line, _MAX_DEPTH) != line)


def _is_about(fields: Fields, threat_id: str) -> bool:
    """TAP documents `id` and `name` for every threat. Gateways use these names too, for other things."""
    if "id" not in fields:
        return "name" in fields
    named = decode_str(fields["id"])
    return named is not None and named.casefold() == threat_id.casefold()


@dataclass
class SummaryWriter:
    """Writes the summaries of one run. After `flush` all of them are in the bucket and in the state."""

    run: RunContext
    pending: dict[str, bytes] = field(default_factory=dict)
    pending_bytes: int = 0

    def add(self, fetched: FetchedSummary) -> None:
        # Its response was read: if the run dies later, that was not the reason.
        self.run.store.answered(fetched.request.threat_id)
        self.pending[fetched.request.threat_id] = fetched.line
        self.pending_bytes += len(fetched.line)
        fetched.release()
        if self.pending_bytes >= self.run.batch_bytes:
            self.flush()

    def flush(self) -> None:
        """Writes the pending lines, except those that a zombie has written under the same name."""
        if not self.pending:
            return
        if name := _objects(self.run).write(self._remaining, self._record):
            self._count(name)
        self.pending, self.pending_bytes = {}, 0
        self.run.store.commit_if_due()

    def _remaining(self) -> bytes:
        with self.run.store.transaction() as state:
            # What a zombie has written is no longer open.
            self.pending = {name: line for name, line in self.pending.items() if name in state.summaries}
        return b"".join(self.pending.values())

    def _record(self, data: bytes) -> None:
        record_object(self.run, data)

    def _count(self, name: str) -> None:
        data, stats = b"".join(self.pending.values()), self.run.stats
        record_object(self.run, data)
        stats.summary_objects += 1
        stats.summaries += len(self.pending)
        stats.summary_bytes += len(data)
        self.run.log.info(
            "Wrote %d threat summaries to gs://%s/%s", len(self.pending), self.run.bucket.name, name
        )


def recover_summaries(run: RunContext) -> int:
    """Records a dead run's objects that are not in its last commit. Returns how many there are."""
    return _objects(run).recover(lambda data: record_object(run, data))


def record_object(run: RunContext, data: bytes) -> None:
    """Counts one object, and closes its summaries."""
    with run.store.transaction() as state:
        for threat_id in summarized_in(data):
            mark_summarized(state, threat_id, run.clock.now())
        run.store.lease.summary_batches += 1


class _Line(msgspec.Struct, rename={"threat_id": "_threatId"}):
    threat_id: str


def summarized_in(data: bytes) -> Iterator[str]:
    """The threat of each line of an object; other lines are skipped."""
    for line in data.splitlines():
        try:
            yield msgspec.json.decode(line, type=_Line).threat_id
        except _UNREADABLE:
            continue


def _objects(run: RunContext) -> NumberedObjects:
    prefix, store = run.settings.summaries.prefix or "", run.store
    return NumberedObjects(store, run.bucket, run.log, prefix, STEM, lambda: store.lease.summary_batches)
