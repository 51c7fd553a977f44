"""Which events were delivered, in which version: the memory that spans overlapping and repeated reads.

One object beside the state: a JSON line `{"tap_seen": 1, "run_id": …, "batches": …, "count": n}`, then n event
keys and n values, each 64 bits, little endian. A value is the version (upper half) and the minute (since 1970)
at which the latest window that showed the event ended.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from tap_forensics.errors import StateUnreadable
from tap_forensics.windows import KEPT, Window

FORMAT = 1
# At 200,000 events an hour about two hours count; 16 bytes each in the bucket, about 135 in memory.
MOST = 1_000_000
# Beyond what overlaps need: as many as this, so that smaller tenants' later verdicts are known as updates.
KEPT_FOR_UPDATES = 250_000
_MARGIN = timedelta(hours=1)
_MINUTE_BITS = (1 << 32) - 1
_HEAD_AT_MOST_BYTES = 1000


class _Head(msgspec.Struct):
    tap_seen: int
    run_id: str
    batches: int
    count: int


@dataclass
class Seen:
    """`entries`: event key → version and minute. `run_id` and `batches`: up to which object it knows of."""

    run_id: str = ""
    batches: int = 0
    entries: dict[int, int] = field(default_factory=dict)


def packed(version: int, window: Window) -> int:
    """The value of an event that this window showed."""
    return version << 32 | -(-int(window.end.timestamp()) // 60)


def version_of(value: int) -> int:
    return value >> 32


def encode(seen: Seen) -> bytes:
    head = msgspec.json.encode(_Head(FORMAT, seen.run_id, seen.batches, len(seen.entries)))
    keys, values = array("Q", seen.entries.keys()), array("Q", seen.entries.values())
    return b"".join([head, b"\n", _little(keys), _little(values)])


def decode(data: bytes, where: str) -> Seen:
    """Raises `StateUnreadable`, naming `where` and the remedy, for anything that `encode` did not make."""
    try:
        line, found, rest = data[:_HEAD_AT_MOST_BYTES].partition(b"\n")
        head = msgspec.json.decode(line, type=_Head)
        body = memoryview(data)[len(line) + 1 :]
        if not found or head.tap_seen != FORMAT or len(body) != 16 * head.count or head.batches < 0:
            raise ValueError("another version, or cut")
        half = 8 * head.count
        entries = dict(zip(_array(body[:half]), _array(body[half:]), strict=True))
    except (ValueError, UnicodeDecodeError) as error:
        raise StateUnreadable(
            f"the memory of delivered events {where} cannot be used ({error}); nothing was changed. "
            "Bring back an earlier version of the object, or delete it: events of the last hours then come again"
        ) from None
    return Seen(head.run_id, head.batches, entries)


def forget(seen: Seen, cursor: datetime | None, overlap: timedelta, gaps: Iterable[Window]) -> int:
    """Drops what no later read can show again; gives how many were dropped though one could.

    Kept: what ended after the cursor less the overlap and an hour, what lies in an open gap, and of the rest
    the youngest while there is room, up to the 7 days that TAP keeps.
    """
    if cursor is None:
        return _drop_oldest(seen, MOST)
    needed = _minute(cursor - overlap - _MARGIN)
    spans = [(_minute(gap.start), _minute(gap.end + timedelta(hours=1))) for gap in gaps]
    if len(seen.entries) > KEPT_FOR_UPDATES:
        seen.entries = {
            key: value
            for key, value in seen.entries.items()
            if (minute := value & _MINUTE_BITS) >= needed or any(a <= minute <= b for a, b in spans)
        } | _youngest(seen.entries, needed)
    oldest = _minute(cursor - KEPT - overlap)
    if any(value & _MINUTE_BITS < oldest for value in seen.entries.values()):
        seen.entries = {k: value for k, value in seen.entries.items() if value & _MINUTE_BITS >= oldest}
    return _drop_oldest(seen, MOST)


def _youngest(entries: dict[int, int], before: int) -> dict[int, int]:
    """Of the entries no longer needed, as many as there is room for."""
    old = sorted(((value & _MINUTE_BITS, key) for key, value in entries.items()), reverse=True)
    return {key: entries[key] for minute, key in old[:KEPT_FOR_UPDATES] if minute < before}


def _drop_oldest(seen: Seen, most: int) -> int:
    over = len(seen.entries) - most
    if over > 0:
        by_age = sorted(seen.entries.items(), key=lambda entry: entry[1] & _MINUTE_BITS)
        seen.entries = dict(by_age[over:])
    return max(0, over)


def _minute(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) // 60


def _array(data: memoryview) -> array[int]:
    made = array("Q")
    made.frombytes(data)
    if sys.byteorder == "big":
        made.byteswap()
    return made


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
