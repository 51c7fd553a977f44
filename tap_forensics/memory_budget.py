"""What a body weighs in memory, told from its raw bytes, and the budget that all bodies of a run share.

Measured on CPython 3.11 with msgspec 0.22: bytes of memory while a value is held as this package decodes it.

    forensics (a dict of raw fields a report)        SIEM (a list of raw events, then one event at a time)
    {}               72, 24 for each byte of JSON    {}                264, 91 for each byte of JSON
    {"a":0}         248, 31                          {"threatID":"1f"} 440, 22
    a distinct key  219, 23 (its line included)      0                  72, 36
    0                64, 32 (a list of raw values)   in an event: [] 88 and {} 192 a level, 0.0 116
    evidence          0 (it stays raw)               text in an event: 5 for each byte

All copies of a body itself, from the raw bytes to the upload, come to 3.4 times its length (30 to 60 MB).

No run can come to a standstill here: who waits for memory holds none of it. A body of up to
`SMALL_BYTES` is read without a reservation, a larger one alone in the place for large bodies, and only
then is it weighed and reserves all it needs, once. Who holds memory waits for the upload at most: what
would wait in a batch that is not full yet is either given back or handed over at once (see `Delivery`).
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
# Eight workers hold so much without asking.
SMALL_BYTES = _MIB
_LOOKED_INTO_BYTES = 16 * _MIB
WORST_PER_BYTE = 40
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Scale:
    """Bytes of memory for each byte, comma and opening brace of a body: the least that reading it takes."""

    per_byte: int
    per_comma: int
    per_brace: int

    def weigh(self, body: bytes) -> int:
        weight = self.per_byte * len(body)
        weight += self.per_comma and self.per_comma * body.count(b",")
        return weight + (self.per_brace and self.per_brace * body.count(b"{"))


EVENTS = Scale(per_byte=3, per_comma=72, per_brace=450)
# The least is what it takes to look where the evidence lies; what is beside it is weighed then.
REPORTS = Scale(per_byte=4, per_comma=0, per_brace=105)
_FIELDS = Scale(per_byte=4, per_comma=250, per_brace=0)
# One event, taken apart and made a fingerprint of.
EVENT = Scale(per_byte=8, per_comma=350, per_brace=350)
_LARGEST_EVENT = 32 * _MIB
_NEVER_HEAVY_BYTES = 512 * 1024


class _Evidence(msgspec.Struct):
    forensics: msgspec.Raw = msgspec.Raw()


class _Reports(msgspec.Struct):
    reports: list[_Evidence] | None = None


_reports = msgspec.json.Decoder(_Reports)


Release = Callable[[], None]


def reserve_events(budget: MemoryBudget, body: bytes) -> Release:
    """What a SIEM answer needs."""
    return budget.reserve(EVENTS.weigh(body))


def reserve_reports(budget: MemoryBudget, body: bytes) -> Release:
    """What a forensics answer needs; if its size may be all in its evidence, that is looked into."""
    if len(body) <= SMALL_BYTES and (release := budget.reserve_if_free(WORST_PER_BYTE * len(body))):
        # Counting would cost a tenth of what all else does; the worst is known without.
        return release
    weight = _FIELDS.weigh(body)
    if weight > _LOOKED_INTO_BYTES:
        # To look takes memory, too. It is given back in between: who waits holds none.
        looked = budget.reserve(REPORTS.weigh(body))
        try:
            weight = min(weight, _looked_into(body, weight))
        finally:
            looked()
    return budget.reserve(weight)


def _looked_into(body: bytes, otherwise: int) -> int:
    """What is beside the evidence may all be values. `otherwise`: of what is no list of reports."""
    try:
        reports = _reports.decode(body).reports or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return otherwise
    beside = len(body) - sum(memoryview(report.forensics).nbytes for report in reports)
    return REPORTS.weigh(body) + WORST_PER_BYTE * beside


def is_heavy_event(event: bytes | msgspec.Raw) -> bool:
    """Whether to take this one event apart would need more than a 512 MiB function has to spare."""
    if memoryview(event).nbytes <= _NEVER_HEAVY_BYTES:
        return False
    text = bytes(event)
    return EVENT.weigh(text) + EVENT.per_brace * text.count(b"[") > _LARGEST_EVENT


class MemoryBudget:
    """So many bytes, reserved and given back by many threads. First come, first served: nobody starves."""

    def __init__(self, limit: int, raise_if_over: Callable[[], None]) -> None:
        self.limit = limit
        self._raise_if_over = raise_if_over
        self.reserved = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def reserve(self, weight: int) -> Release:
        """Waits until there is room; gives what returns it, once however often it is called.

        Raises `TooLarge` where there never will be, and what `raise_if_over` raises while it waits.
        """
        if weight > self.limit:
            raise TooLarge(f"an answer that needs {weight} bytes of memory was refused before it was decoded")
        place = object()
        with self._changed:
            self._waiting.append(place)
            try:
                while self._waiting[0] is not place or self.reserved + weight > self.limit:
                    self._raise_if_over()
                    self._changed.wait(_POLL_SECONDS)
                self.reserved += weight
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()
        return self._giving_back(weight)

    def reserve_if_free(self, weight: int) -> Release | None:
        """At once, if half of the budget is enough for it and for all others; None if not."""
        with self._changed:
            if self._waiting or self.reserved + weight > self.limit // 2:
                return None
            self.reserved += weight
        return self._giving_back(weight)

    def _giving_back(self, weight: int) -> Release:
        store = [weight]

        def give_back() -> None:
            with self._changed:
                self.reserved -= store.pop() if store else 0
                self._changed.notify_all()

        return give_back
