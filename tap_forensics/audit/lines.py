"""The lines in the bucket: which threats and events they have, which occur twice, which a feed cannot read.

Memory holds ids and hashes, never a body.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha1
from typing import Any, BinaryIO, NamedTuple

import msgspec

from tap_forensics.clock import parse_iso
from tap_forensics.errors import CollectorError
from tap_forensics.records.event_lines import (
    UNREADABLE,
    read_line,
    read_record,
    stored_fingerprint,
    to_event,
)
from tap_forensics.records.ndjson import decode_str
from tap_forensics.storage.state import run_time
from tap_forensics.tap.windows import Window

# A longer line makes the whole feed fail (MaxLogLineSize4MBExceeded).
LONGEST_LINE_BYTES = 4_000_000
# Each needs about 150 bytes of memory.
MOST_EVENTS = 1_000_000
_PIECE_BYTES = 1024 * 1024
_LINE_BITS = 32
_UPDATES = (b',"_update":true}', b',"_update":true}]}')
_NOTHING = msgspec.Raw()


class Undecidable(CollectorError):
    """It cannot be decided whether the bucket is complete; the message says why."""


@dataclass(frozen=True)
class SourceObject:
    """An object of a feed. `run_id` is empty if its name is not one of the function's."""

    name: str
    run_id: str
    written: datetime


class Defect(NamedTuple):
    """What was found, and why it was expected otherwise."""

    name: str
    why: str


class _EvidenceLine(msgspec.Struct, rename={"threat_id": "_threatId", "part": "_part"}):
    """Raw values, so that one of an odd type costs only itself."""

    threat_id: msgspec.Raw = _NOTHING
    scope: msgspec.Raw = _NOTHING
    id: msgspec.Raw = _NOTHING
    part: msgspec.Raw = _NOTHING
    reports: msgspec.Raw = _NOTHING


_evidence = msgspec.json.Decoder(_EvidenceLine)
_reports = msgspec.json.Decoder(list[_EvidenceLine])
_any_json = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True)
class Rules:
    """What counts as a repetition: a threat's report within `dedup`; with `campaigns_once` a campaign's
    report in one run.
    """

    dedup: timedelta
    campaigns_once: bool

    def is_repeated(self, before: SourceObject, after: SourceObject, *, campaign: bool) -> bool:
        if before.run_id and before.run_id == after.run_id:
            return True
        if campaign and self.campaigns_once:
            return False
        # A run that takes over has an old ID, and a copied object a new time: both must be near.
        return _between(before, after) < self.dedup


def _between(one: SourceObject, other: SourceObject) -> timedelta:
    apart = abs(one.written - other.written)
    if one.run_id and other.run_id:
        apart = max(apart, abs(run_time(one.run_id) - run_time(other.run_id)))
    return apart


class EventPlaces:
    """The event lines by key: where the first one is, and whether TAP shows the event."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._places = array("Q")
        # 0: only updates so far, else the version + 1.
        self._versions = array("Q")
        self._shown = bytearray()
        self._certain = bytearray()
        # An event has a second version only if its verdict changed.
        self._more_versions: set[tuple[int, int]] = set()

    def __contains__(self, key: int) -> bool:
        return key in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, key: int, version: int | None, place: tuple[int, int], *, certain: bool) -> bool:
        """Adds a line; `version` is None for an update. Returns whether it repeats one.

        Raises `Undecidable`.
        """
        at = self._numbers.setdefault(key, len(self._places))
        if at == len(self._places):
            if at >= MOST_EVENTS:
                raise Undecidable(f"the bucket has over {MOST_EVENTS:,} events of this interval: shorten it")
            self._places.append(place[0] << _LINE_BITS | place[1])
            self._versions.append(0)
            self._shown.append(0)
            self._certain.append(certain)
        return version is not None and self._is_repeated(key, at, version)

    def _is_repeated(self, key: int, at: int, version: int) -> bool:
        if self._versions[at] == version + 1 or (key, version) in self._more_versions:
            return True
        if self._versions[at]:
            self._more_versions.add((key, version))
        else:
            self._versions[at] = version + 1
        return False

    def place(self, key: int) -> tuple[int, int]:
        """The number of the object, and of the line in it."""
        place = self._places[self._numbers[key]]
        return place >> _LINE_BITS, place & ((1 << _LINE_BITS) - 1)

    def mark_shown(self, key: int) -> bool:
        """TAP shows an event that has a line. Returns whether it is the first time."""
        at = self._numbers[key]
        first = not self._shown[at]
        self._shown[at] = 1
        return first

    def not_shown(self) -> Iterator[tuple[int, int]]:
        for key, at in self._numbers.items():
            if self._certain[at] and not self._shown[at]:
                yield self.place(key)


@dataclass
class BucketLines:
    """What was read. Events in `interval` are compared with TAP's.

    `threats`, `campaigns`: those that have a line. `others`: lines that are neither evidence nor an event.
    """

    interval: Window
    rules: Rules
    threats: set[str] = field(default_factory=set)
    campaigns: set[str] = field(default_factory=set)
    twice: list[Defect] = field(default_factory=list)
    unreadable: list[Defect] = field(default_factory=list)
    sources: list[SourceObject] = field(default_factory=list)
    lines: int = 0
    others: int = 0
    events: EventPlaces = field(default_factory=EventPlaces)
    _reports: dict[bytes, int] = field(default_factory=dict)

    def add_object(self, source: SourceObject, stream: BinaryIO, *, of_events: bool) -> None:
        """Reads one object. Raises `Undecidable` over `MOST_EVENTS`, and as the stream does."""
        self.sources.append(source)
        for number, line in numbered_lines(stream):
            self.lines += 1
            fault = fault_of(line)
            if line is None or fault:
                self.unreadable.append(Defect(self._name(number), fault))
            elif not (self._add_event(line, number) if of_events else self._add_evidence(line, number)):
                self.others += 1

    def check_object(self, name: str, stream: BinaryIO) -> None:
        """An object that is not the function's: only whether a feed can read it."""
        for number, line in numbered_lines(stream):
            if fault := fault_of(line):
                self.unreadable.append(Defect(f"{name}:{number}", fault))

    def gone(self) -> Iterator[str]:
        """Lines whose event is certainly of the interval, although TAP did not show it."""
        for source, number in self.events.not_shown():
            yield f"{self.sources[source].name}:{number}"

    def _name(self, number: int) -> str:
        return f"{self.sources[-1].name}:{number}"

    def _add_event(self, line: bytes, number: int) -> bool:
        found = read_line(line)
        if found is None:
            return False
        kind, event = found
        try:
            fields = read_record(event)
            moment = fields.get("clickTime" if kind.startswith("clicks") else "messageTime")
            key, version = stored_fingerprint(event) or to_event(kind, event, fields).fingerprint
        except (*UNREADABLE, AttributeError, ValueError):
            return False
        is_update = line.endswith(_UPDATES)
        certain = self._is_certain(moment)
        place = len(self.sources) - 1, number
        if self.events.add(key, None if is_update else version, place, certain=certain):
            first, at = self.events.place(key)
            self.twice.append(Defect(self._name(number), f"as {self.sources[first].name}:{at}"))
        return True

    def _is_certain(self, moment: Any) -> bool:
        """TAP creates an event at the time that is in it or later, and before its line is written."""
        if self.sources[-1].written > self.interval.end or not isinstance(moment, str):
            return False
        try:
            return parse_iso(moment) >= self.interval.start
        except ValueError:
            return False

    def _add_evidence(self, line: bytes, number: int) -> bool:
        try:
            fields = _evidence.decode(line)
            threat_id = decode_str(fields.threat_id)
            reports = _reports.decode(fields.reports) if bytes(fields.reports) else [fields]
            named = [(decode_str(report.scope), decode_str(report.id)) for report in reports]
        except UNREADABLE:
            return False
        campaigns = {report_id for scope, report_id in named if scope == "CAMPAIGN" and report_id}
        if threat_id is None and not campaigns:
            return False
        self.campaigns |= campaigns
        # A campaign's line names one of its threats, which may still wait for its own report.
        if threat_id is not None and any(scope != "CAMPAIGN" for scope, _ in named):
            self.threats.add(threat_id)
        for scope, report_id in named:
            is_campaign = scope == "CAMPAIGN"
            owner = "" if is_campaign and self.rules.campaigns_once else threat_id
            # Without an ID, only the same content is the same report.
            identity = (scope, owner, report_id or _digest(line), bytes(fields.part))
            self._note_report(_digest(repr(identity).encode()), number, is_campaign)
        return True

    def _note_report(self, identity: bytes, number: int, is_campaign: bool) -> None:
        source = len(self.sources) - 1
        before = self._reports.get(identity)
        self._reports[identity] = source
        if before is None:
            return
        if self.rules.is_repeated(self.sources[before], self.sources[source], campaign=is_campaign):
            self.twice.append(Defect(self._name(number), f"as in {self.sources[before].name}"))


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Every line that is not blank, without its line end; None for one that is too long."""
    number = 0
    while data := stream.readline(LONGEST_LINE_BYTES + 2):
        number += 1
        line = data.rstrip(b"\r\n")
        if len(line) > LONGEST_LINE_BYTES:
            while data and not data.endswith(b"\n"):
                data = stream.readline(_PIECE_BYTES)
            yield number, None
        elif line:
            yield number, line


def fault_of(line: bytes | None) -> str:
    """Why a feed cannot read a line; empty if it can."""
    if line is None:
        return "a line over 4 MB"
    if not line.isascii() and not _is_utf8(line):
        return "invalid UTF-8"
    try:
        _any_json.decode(line)
    except RecursionError:
        return "JSON that is nested too deep"
    except msgspec.DecodeError:
        return "invalid JSON"
    return ""


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _digest(data: bytes) -> bytes:
    return sha1(data, usedforsecurity=False).digest()
