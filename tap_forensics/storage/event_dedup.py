"""The event dedup index: which events were delivered in which version, across overlapping reads.

One object beside the state: a JSON line `{"tap_seen": 1, "run_id": …, "batches": …, "count": n}`, then n
event keys and n values, each 64 bits, little endian. A value is the version (upper half) and the minute
(since 1970) at which the latest window with the event ended.
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
# At 200,000 events an hour about two hours are needed. 16 bytes each in the bucket, about 135 in memory.
MAX_ENTRIES = 1_000_000
# Entries are kept up to this number although no overlap needs them, to recognize later verdicts as updates.
KEPT_FOR_UPDATES = 250_000
_MARGIN = timedelta(hours=1)
_MINUTE_BITS = (1 << 32) - 1
_ALL_BITS = (1 << 64) - 1
# An odd number spreads a version over all bits (the golden ratio, after Knuth).
_SPREAD = 0x9E3779B97F4A7C15
_MAX_HEAD_BYTES = 1000
_EPOCH = datetime.fromtimestamp(0, UTC)
# Of a year that `datetime` has, whatever is in the object.
_LATEST_MINUTE = 1_000_000_000


class _Head(msgspec.Struct):
    tap_seen: int
    run_id: str
    batches: int
    count: int


@dataclass
class EventIndex:
    """`entries`: event key → version and minute. `run_id`, `batches`: the last event object in the index."""

    run_id: str = ""
    batches: int = 0
    entries: dict[int, int] = field(default_factory=dict)


class Novelty(Enum):
    """Why an event is delivered: the index has it not at all, or in another version."""

    NEW = "not in the index"
    UPDATE = "in the index in another version"


def observe(seen: EventIndex, key: int, version: int, minute: int) -> Novelty | None:
    """Records the last version of an event; returns None if it is this one already.

    A verdict that changes back is an update, too: SecOps must not keep the one before.
    """
    entries = seen.entries
    last = entries.get(key)
    if last is None:
        entries[key] = version << 32 | minute
        return Novelty.NEW
    entries[key] = version << 32 | max(last & _MINUTE_BITS, minute)
    if last >> 32 == version:
        return None
    # 0.1.0 kept the first version, and each later one under another key.
    in_old_form = entries.pop(key ^ (version * _SPREAD & _ALL_BITS), None) is not None
    return None if in_old_form else Novelty.UPDATE


@dataclass
class SideBySide:
    """An event in several versions in one response; the index has one checksum for all of them.

    `versions`: not returned yet. `last_version`: from before this response. `novelty`: of the next one.
    """

    versions: set[int]
    last_version: int | None = None
    novelty: Novelty | None = None
    observed: bool = False


def side_by_side(fingerprints: Iterable[tuple[int, int]]) -> dict[int, SideBySide]:
    """By key, the events that are in one response in more than one version."""
    first: dict[int, int] = {}
    several: dict[int, SideBySide] = {}
    for key, version in fingerprints:
        if first.setdefault(key, version) != version:
            several.setdefault(key, SideBySide({first[key]})).versions.add(version)
    return several


def observe_version(
    seen: EventIndex, shown: SideBySide, key: int, version: int, minute: int
) -> Novelty | None:
    """As `observe`, for one of several versions: None for all if they were in one response before."""
    if not shown.observed:
        last = seen.entries.get(key)
        shown.last_version = None if last is None else last >> 32
        shown.novelty = observe(seen, key, crc32(repr(sorted(shown.versions)).encode()), minute)
        shown.observed = True
    if shown.novelty is None or version == shown.last_version or version not in shown.versions:
        return None
    shown.versions.remove(version)
    novelty, shown.novelty = shown.novelty, Novelty.UPDATE
    return novelty


def last_minute(window: Window) -> int:
    """The minute that an entry gets for an event in this window."""
    return -(-int(window.end.timestamp()) // 60)


def encode(seen: EventIndex) -> bytes:
    head = msgspec.json.encode(_Head(FORMAT, seen.run_id, seen.batches, len(seen.entries)))
    keys, values = array("Q", seen.entries.keys()), array("Q", seen.entries.values())
    return b"".join([head, b"\n", _little_endian(keys), _little_endian(values)])


def decode(data: bytes, where: str) -> EventIndex:
    """An index from `encode`. Raises `StateUnreadable` with `where` and the remedy for any other bytes."""
    try:
        line = data[:_MAX_HEAD_BYTES].partition(b"\n")[0]
        head = msgspec.json.decode(line, type=_Head)
        body = memoryview(data)[len(line) + 1 :]
        entries = _entries(head, body)
    except (ValueError, UnicodeDecodeError) as error:
        raise StateUnreadable(
            f"the event dedup index {where} cannot be used ({error}); nothing was changed. "
            "Restore an earlier version of the object, or delete it: recent events are then delivered again"
        ) from None
    return EventIndex(head.run_id, head.batches, entries)


def _entries(head: _Head, body: memoryview) -> dict[int, int]:
    half = 8 * head.count
    if head.tap_seen != FORMAT or len(body) != 2 * half or head.batches < 0:
        raise ValueError("another version, or truncated")
    return dict(zip(_decode_array(body[:half]), _decode_array(body[half:]), strict=True))


def prune(
    seen: EventIndex,
    read_from: datetime | None,
    gaps: Iterable[Window],
    *,
    max_entries: int = MAX_ENTRIES,
    kept_for_updates: int = KEPT_FOR_UPDATES,
) -> int:
    """Drops entries that no later read needs; returns how many needed ones were dropped over `max_entries`.

    `read_from`: the start of the next read (the cursor less the overlap); None keeps all. Needed are entries
    from an hour before it and those in an open gap. Others are kept for up to the 7 days that TAP keeps
    events, while there are fewer than `kept_for_updates`.
    """
    spans = [(_minute(gap.start), _minute(gap.end + MAX_WINDOW)) for gap in gaps]
    oldest = 0
    if read_from is not None:
        needed = _minute(read_from - _MARGIN)
        with_room = _oldest_of_newest(seen.entries, kept_for_updates)
        oldest = max(_minute(read_from - RETENTION), min(needed, with_room))
    seen.entries = {
        key: value
        for key, value in seen.entries.items()
        if (minute := value & _MINUTE_BITS) >= oldest or any(start <= minute <= end for start, end in spans)
    }
    before = len(seen.entries)
    if before > max_entries:
        oldest = _oldest_of_newest(seen.entries, max_entries)
        seen.entries = {k: value for k, value in seen.entries.items() if value & _MINUTE_BITS >= oldest}
    return before - len(seen.entries)


def complete_from(seen: EventIndex) -> datetime | None:
    """Since when the index has every event that was delivered, if no gap is open; None if it is empty.

    What was dropped is older than all that is left.
    """
    oldest = min((value & _MINUTE_BITS for value in seen.entries.values()), default=None)
    return None if oldest is None else _EPOCH + timedelta(minutes=min(oldest, _LATEST_MINUTE))


def _oldest_of_newest(entries: dict[int, int], most: int) -> int:
    """The minute from which on there are at most `most` entries; 0 if there are no more in total."""
    if len(entries) <= most:
        return 0
    return sorted([value & _MINUTE_BITS for value in entries.values()])[-most - 1] + 1


def _minute(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) // 60


def _decode_array(data: memoryview) -> array[int]:
    numbers = array("Q")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _little_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
