"""Which events were delivered, in which version: the memory that spans overlapping and repeated reads.

One object beside the state: a JSON line `{"tap_seen": 1, "run_id": …, "batches": …, "count": n}`, then n
event keys and n values, each 64 bits, little endian. A value is the version (upper half) and the minute
(since 1970) at which the latest window that showed the event ended.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from zlib import crc32

import msgspec

from tap_forensics.errors import StateUnreadable
from tap_forensics.tap.windows import MAX_WINDOW, RETENTION, Window

FORMAT = 1
# At 200,000 events an hour about two hours count; 16 bytes each in the bucket, about 135 in memory.
MAX_ENTRIES = 1_000_000
# Beyond what overlaps need: as many as this, so that smaller tenants' later verdicts are known as updates.
KEPT_FOR_UPDATES = 250_000
_MARGIN = timedelta(hours=1)
_MINUTE_BITS = (1 << 32) - 1
_ALL_BITS = (1 << 64) - 1
# An odd number spreads a version over all bits (the golden ratio, after Knuth).
_SPREAD = 0x9E3779B97F4A7C15
_HEAD_AT_MOST_BYTES = 1000


class _Head(msgspec.Struct):
    tap_seen: int
    run_id: str
    batches: int
    count: int


@dataclass
class EventIndex:
    """`entries`: event key → version and minute. `run_id` and `batches`: up to which object it knows of."""

    run_id: str = ""
    batches: int = 0
    entries: dict[int, int] = field(default_factory=dict)


class Novelty(Enum):
    """What an event is to the memory, where it is not known in this version."""

    NEW = "never seen"
    UPDATE = "seen in another version"


def observe(seen: EventIndex, key: int, version: int, minute: int) -> Novelty | None:
    """Remembers the last version of an event; None if that is this one.

    A verdict that flips back is a new version each time: SecOps must not stay at the one before.
    """
    entries = seen.entries
    last = entries.get(key)
    if last is None:
        entries[key] = version << 32 | minute
        return Novelty.NEW
    entries[key] = version << 32 | max(last & _MINUTE_BITS, minute)
    if last >> 32 == version:
        return None
    # 0.1.0 kept the first version, and a later one under another key.
    known_later = entries.pop(key ^ (version * _SPREAD & _ALL_BITS), None) is not None
    return None if known_later else Novelty.UPDATE


@dataclass
class SideBySide:
    """An event that one response shows in several versions; they are remembered as one, by their sum."""

    versions: set[int]
    before: int | None = None
    news: Novelty | None = None
    noted: bool = False


def side_by_side(fingerprints: Iterable[tuple[int, int]]) -> dict[int, SideBySide]:
    """By key, the events that one response shows in more than one version."""
    first: dict[int, int] = {}
    several: dict[int, SideBySide] = {}
    for key, version in fingerprints:
        if first.setdefault(key, version) != version:
            several.setdefault(key, SideBySide({first[key]})).versions.add(version)
    return several


def observe_version(
    seen: EventIndex, shown: SideBySide, key: int, version: int, minute: int
) -> Novelty | None:
    """As `note`, for one of several versions: all are news if they were not shown together before."""
    if not shown.noted:
        last = seen.entries.get(key)
        shown.before = None if last is None else last >> 32
        shown.news = observe(seen, key, crc32(repr(sorted(shown.versions)).encode()), minute)
        shown.noted = True
    if shown.news is None or version == shown.before or version not in shown.versions:
        return None
    shown.versions.remove(version)
    news, shown.news = shown.news, Novelty.UPDATE
    return news


def last_minute(window: Window) -> int:
    """The minute of a value for what this window showed."""
    return -(-int(window.end.timestamp()) // 60)


def encode(seen: EventIndex) -> bytes:
    head = msgspec.json.encode(_Head(FORMAT, seen.run_id, seen.batches, len(seen.entries)))
    keys, values = array("Q", seen.entries.keys()), array("Q", seen.entries.values())
    return b"".join([head, b"\n", _little(keys), _little(values)])


def decode(data: bytes, where: str) -> EventIndex:
    """Raises `StateUnreadable`, naming `where` and the remedy, for anything that `encode` did not make."""
    try:
        line = data[:_HEAD_AT_MOST_BYTES].partition(b"\n")[0]
        head = msgspec.json.decode(line, type=_Head)
        body = memoryview(data)[len(line) + 1 :]
        entries = _entries(head, body)
    except (ValueError, UnicodeDecodeError) as error:
        raise StateUnreadable(
            f"the memory of delivered events {where} cannot be used ({error}); nothing was changed. "
            "Bring back an earlier version of the object, or delete it: the last hours' events come again"
        ) from None
    return EventIndex(head.run_id, head.batches, entries)


def _entries(head: _Head, body: memoryview) -> dict[int, int]:
    half = 8 * head.count
    if head.tap_seen != FORMAT or len(body) != 2 * half or head.batches < 0:
        raise ValueError("of another version, or cut")
    return dict(zip(_array(body[:half]), _array(body[half:]), strict=True))


def prune(
    seen: EventIndex,
    cursor: datetime | None,
    overlap: timedelta,
    gaps: Iterable[Window],
    *,
    max_entries: int = MAX_ENTRIES,
    kept_for_updates: int = KEPT_FOR_UPDATES,
) -> int:
    """Drops what no later read can show again; gives how many had to go though one could.

    Kept: what ended after the cursor less the overlap and an hour, what lies in an open gap, and, while all
    are fewer than `kept_for_updates`, the rest too, up to the 7 days that TAP keeps.
    """
    spans = [(_minute(gap.start), _minute(gap.end + MAX_WINDOW)) for gap in gaps]
    oldest = 0
    if cursor is not None:
        needed = _minute(cursor - overlap - _MARGIN)
        roomy = _youngest_from(seen.entries, kept_for_updates)
        oldest = max(_minute(cursor - overlap - RETENTION), min(needed, roomy))
    seen.entries = {
        key: value
        for key, value in seen.entries.items()
        if (minute := value & _MINUTE_BITS) >= oldest or any(a <= minute <= b for a, b in spans)
    }
    before = len(seen.entries)
    if before > max_entries:
        oldest = _youngest_from(seen.entries, max_entries)
        seen.entries = {k: value for k, value in seen.entries.items() if value & _MINUTE_BITS >= oldest}
    return before - len(seen.entries)


def _youngest_from(entries: dict[int, int], most: int) -> int:
    """The minute from which on at most so many entries lie; 0 where all are no more."""
    if len(entries) <= most:
        return 0
    return sorted([value & _MINUTE_BITS for value in entries.values()])[-most - 1] + 1


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
