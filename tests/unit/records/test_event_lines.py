from __future__ import annotations

import json
import tracemalloc

import pytest

from tap_forensics.records.event_lines import envelope, line_of, read_line, read_record, to_event, truncate

MIB = 1024 * 1024


@pytest.mark.parametrize("event", [b"{}", b"{ }", b"{   }", b"{\n}", b"{\r\n \t}"])
@pytest.mark.parametrize("shape", ["api", "flat"])
@pytest.mark.parametrize("update", [False, True])
def test_an_event_without_fields_is_a_line_however_it_is_written(
    event: bytes, shape: str, update: bool
) -> None:
    kind = "messagesBlocked"
    taken = to_event(kind, event, read_record(event))
    line = line_of(bytes(taken.record), envelope(kind, shape), update=update)
    document = json.loads(line)
    record = document[kind][0] if shape == "api" else document
    flat = {"eventType": kind} if shape == "flat" else {}
    assert record == {**flat, "_eventType": kind, **({"_update": True} if update else {})}
    assert read_line(line) == (kind, b"{}")
    assert taken.fingerprint == to_event(kind, b"{}", {}).fingerprint


@pytest.mark.parametrize("tail", [b"", b',"_update":true'])
@pytest.mark.parametrize("event", [b'{"id":"x"}', b"{}"])
def test_a_flat_line_of_an_older_version_is_recognized(event: bytes, tail: bytes) -> None:
    ours = b'"_eventType":"clicksBlocked"' + tail + b"}"
    line = b"{" + ours if event == b"{}" else event[:-1] + b"," + ours
    assert read_line(line) == ("clicksBlocked", event)


def nested(levels: int) -> bytes:
    return (
        b'{"n":'
        + b"9" * 5000
        + b',"a":'
        + b"[" * levels
        + b'"'
        + b"x" * 240_000
        + b'"'
        + b"]" * levels
        + b"}"
    )


def test_a_number_that_cannot_be_read_in_a_nested_event_is_not_copied_once_a_level() -> None:
    record = nested(900)
    tracemalloc.start()
    try:
        assert "n" in read_record(record)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


def test_an_event_of_too_many_fields_is_cut_to_its_size_in_little_memory() -> None:
    event = b"{" + b",".join(b'"%x":0' % number for number in range(600_000)) + b"}"
    known_by = to_event("clicksBlocked", event, read_record(event)).fingerprint
    tracemalloc.start()
    try:
        cut = json.loads(truncate(event, 3 * MIB, known_by))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cut["_bytes"] == len(event)
    assert peak < 16 * MIB
