"""The weight of a body (the memory it needs, estimated from its raw bytes) and the budget for all bodies.

Measured on CPython 3.11 with msgspec 0.22: bytes of memory for a value as this package decodes it.

    forensics (a dict of raw fields per report)      SIEM (a list of raw events, then one event at a time)
    {}               72, 24 for each byte of JSON    {}                264, 91 for each byte of JSON
    {"a":0}         248, 31                          {"threatID":"1f"} 440, 22
    a distinct key  219, 23 (its line included)      0                  72, 36
    0                64, 32 (a list of raw values)   in an event: [] 88 and {} 192 a level, 0.0 116
    evidence          0 (it stays raw)               text in an event: 5 for each byte

All copies of a body, from the raw bytes to the upload, need 3.4 times its length (30 to 60 MB).

There is no deadlock, because a thread that waits for memory holds none. A body of up to `SMALL_BYTES` is read
without a reservation; a larger one is read alone, in the slot for large bodies. Then it is weighed, and all
it needs is reserved at once. A thread that holds memory waits only for an upload: a body that would wait in a
batch that is not full is released, or the batch is flushed (see `EvidenceWriter`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tap_forensics.errors import TooLarge

_MIB = 1024 * 1024
BUDGET_BYTES = 160 * _MIB
# Each worker (eight by default) may hold so much without a reservation.
SMALL_BYTES = _MIB
_INSPECTED_FROM_BYTES = 16 * _MIB
WORST_PER_BYTE = 40
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Scale:
    """Bytes of memory for each byte, comma and opening brace of a body."""

    per_byte: int
    per_comma: int
    per_brace: int

    def weigh(self, body: bytes) -> int:
        weight = self.per_byte * len(body)
        weight += self.per_comma and self.per_comma * body.count(b",")
        return weight + (self.per_brace and self.per_brace * body.count(b"{"))


EVENTS = Scale(per_byte=3, per_comma=72, per_brace=450)
# Enough to find the evidence; the other fields are weighed after that.
REPORTS = Scale(per_byte=4, per_comma=0, per_brace=105)
_FIELDS = Scale(per_byte=4, per_comma=250, per_brace=0)
# One event, decoded for its fingerprint.
EVENT = Scale(per_byte=8, per_comma=350, per_brace=350)
_MAX_EVENT_WEIGHT = 32 * _MIB
_NEVER_HEAVY_BYTES = 512 * 1024


class _Evidence(msgspec.Struct):
    forensics: msgspec.Raw = msgspec.Raw()


class _Reports(msgspec.Struct):
    reports: list[_Evidence] | None = None


_reports = msgspec.json.Decoder(_Reports)


Release = Callable[[], None]


def reserve_events(budget: MemoryBudget, body: bytes) -> Release:
    """Reserves what a SIEM response needs. Raises as `MemoryBudget.reserve`."""
    return budget.reserve(EVENTS.weigh(body))


def reserve_reports(budget: MemoryBudget, body: bytes) -> Release:
    """Reserves what a forensics response needs; a large one is inspected, because evidence needs little.

    Raises as `MemoryBudget.reserve`.
    """
    if len(body) <= SMALL_BYTES and (release := budget.reserve_if_free(WORST_PER_BYTE * len(body))):
        # Counting commas would add a tenth to the cost of a response; the worst case is known without.
        return release
    weight = _FIELDS.weigh(body)
    if weight > _INSPECTED_FROM_BYTES:
        # Inspecting needs memory, too. Released before the next reservation: a waiting thread holds none.
        release_inspection = budget.reserve(REPORTS.weigh(body))
        try:
            weight = min(weight, _inspected_weight(body, weight))
        finally:
            release_inspection()
    return budget.reserve(weight)


def _inspected_weight(body: bytes, default: int) -> int:
    """The weight if all but the evidence is decoded into many values. `default`: if it has no reports."""
    try:
        reports = _reports.decode(body).reports or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return default
    evidence_bytes = sum(memoryview(report.forensics).nbytes for report in reports)
    return REPORTS.weigh(body) + WORST_PER_BYTE * (len(body) - evidence_bytes)


def is_heavy_event(event: bytes | msgspec.Raw) -> bool:
    """Whether decoding this one event would need more memory than a 512 MiB function has left."""
    if memoryview(event).nbytes <= _NEVER_HEAVY_BYTES:
        return False
    text = bytes(event)
    return EVENT.weigh(text) + EVENT.per_brace * text.count(b"[") > _MAX_EVENT_WEIGHT


class MemoryBudget:
    """`limit` bytes that many threads reserve and release, first come, first served: no thread starves."""

    def __init__(self, limit: int, raise_if_over: Callable[[], None]) -> None:
        self.limit = limit
        self._raise_if_over = raise_if_over
        self.reserved = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def reserve(self, weight: int) -> Release:
        """Waits until `weight` bytes are free; returns the function that releases them (calls after the
        first do nothing).

        Raises `TooLarge` if `weight` is over the limit, and what `raise_if_over` raises during the wait.
        """
        if weight > self.limit:
            raise TooLarge(f"a response that needs {weight} bytes of memory was rejected before decoding")
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn or self.reserved + weight > self.limit:
                    self._raise_if_over()
                    self._changed.wait(_POLL_SECONDS)
                self.reserved += weight
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        return self._release_once(weight)

    def reserve_if_free(self, weight: int) -> Release | None:
        """Reserves without waiting if the total stays within half of the limit; else returns None."""
        with self._changed:
            if self._waiting or self.reserved + weight > self.limit // 2:
                return None
            self.reserved += weight
        return self._release_once(weight)

    def _release_once(self, weight: int) -> Release:
        held = [weight]

        def release() -> None:
            with self._changed:
                self.reserved -= held.pop() if held else 0
                self._changed.notify_all()

        return release
