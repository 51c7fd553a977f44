"""Answers that are small on the wire and large in memory: each costs itself, and a small function lives."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.support.events_lab import EVENTS
from tests.support.lab import FORENSICS, SIEM, Lab, open_lab
from tests.support.measured import run_heard

MIB = 1024 * 1024
# With 70 to 90 MiB after the imports, a function of 512 MiB has room for more.
MOST_GROWTH = 250 * MIB
EVIDENCE = b'{"type":"url","display":"http://example.com/a","what":{"url":"http://example.com/a"},"time":0},'


@pytest.fixture
def lab() -> Iterator[Lab]:
    now = datetime.now(UTC)
    with open_lab(World.from_threats(28, now=now, report_bytes=500), now=now, EVENTS_PREFIX=EVENTS) as made:
        made.env["STORAGE_EMULATOR_HOST"] = made.bucket.url
        yield made


def reports(*items: bytes) -> bytes:
    return b'{"generated":"2026-03-04T08:00:00Z","reports":[%s]}' % b",".join(items)


def report(fields: bytes) -> bytes:
    return reports(b'{"scope":"THREAT","id":"x",%s}' % fields)


def keys(number: int) -> bytes:
    return b",".join(b'"%x":0' % key for key in range(number))


def answers(lab: Lab, threats: list[str], body: bytes) -> None:
    packed = Fault("body", body=gzip.compress(body, 6), headers={"Content-Encoding": "gzip"}, times=None)
    for name in threats:
        lab.tap.faults.add(FORENSICS, packed, threat_id=name)


def named_as_failed(lab: Lab, logged: list[str]) -> set[str]:
    """The threats that a warning names, whose failed attempt the state knows."""
    backlog = lab.state().get("backlog", {})
    words = [line for line in logged if "WARNING" in line]
    return {
        name
        for name in lab.world.threats
        if any(name in line and "stays on the backlog" in line for line in words)
        and backlog[name]["attempts"] == 1
    }


@pytest.mark.parametrize(
    ("body", "times"),
    [
        pytest.param(reports(b"{}," * 3_900_000 + b"{}"), 1, id="millions of reports"),
        pytest.param(reports(b'{"a":0},' * 260_000 + b"{}"), 8, id="2 MB of small reports"),
        pytest.param(reports(b"0," * 1_000_000 + b"0"), 8, id="2 MB of numbers"),
        pytest.param(reports(b"{}," * 340_000 + b"{}"), 8, id="1 MB of reports"),
        pytest.param(report(keys(1_000_000)), 8, id="millions of fields"),
        pytest.param(report(b'"forensics":[' + EVIDENCE * 600_000 + b"{}]"), 8, id="60 MB of evidence"),
        pytest.param(b"\xff" * 30_000_000, 8, id="no text at all"),
    ],
)
def test_an_answer_too_heavy_for_memory_costs_only_its_threat(lab: Lab, body: bytes, times: int) -> None:
    bad = list(lab.world.threats)[:times]
    answers(lab, bad, body)
    stats, growth, logged = run_heard(lab.env)
    assert growth < MOST_GROWTH
    assert stats["threats_fetched"] == 28 - times
    assert named_as_failed(lab, logged) == set(bad)


@pytest.mark.parametrize(
    ("body", "times"),
    [
        pytest.param(report(b'"forensics":[' + EVIDENCE * 280_000 + b"{}]"), 4, id="27 MB of evidence"),
        pytest.param(report(b'"name":"%s"' % (b"x" * 39 * MIB)), 4, id="39 MB of text"),
        pytest.param(report(keys(550_000)), 4, id="half a million fields"),
        pytest.param(report(keys(205_000)), 20, id="2 MB of fields"),
        pytest.param(report(b'"forensics":[' + EVIDENCE * 22_000 + b"{}]"), 20, id="2 MB of evidence"),
        pytest.param(reports(*[b'{"a":0}'] * 2_000), 20, id="two thousand reports"),
        pytest.param(report(b'"name":"%s"' % (b"\\\\" * 5 * MIB + b"\\ud800")), 4, id="backslashes"),
        pytest.param(report(b'"name":"%s"' % (b"\\ud800" * MIB)), 4, id="lone surrogates"),
    ],
)
def test_the_heaviest_answers_that_fit_are_delivered_by_eight_workers(
    lab: Lab, body: bytes, times: int
) -> None:
    answers(lab, list(lab.world.threats)[:times], body)
    stats, growth, logged = run_heard(lab.env)
    assert growth < MOST_GROWTH
    assert stats["threats_fetched"] == 28
    assert named_as_failed(lab, logged) == set()


NUMBER = b"9" * 5000


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b'{"GUID":"bad","n":%s,"a":%s}' % (NUMBER, b"[" * 120_000 + b"]" * 120_000), id="lists"),
        pytest.param(
            b'{"GUID":"bad","n":%s,"a":%s}' % (NUMBER, b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
            id="objects",
        ),
        pytest.param(
            b'{"GUID":"bad","a":%s}' % (b"[" * 300 + NUMBER + b',"' + b"x" * 3_000_000 + b'"' + b"]" * 300),
            id="a number in the depth",
        ),
        pytest.param(
            b'{"GUID":"bad","a":%s}' % (b"[" * 300 + b"[]," * 150_000 + NUMBER + b"]" * 300),
            id="values in the depth",
        ),
        pytest.param(b'{"GUID":"bad","a":[%s0]}' % (b"[]," * 2_000_000), id="millions of values"),
        pytest.param(b'{"GUID":"bad","a":"%s"}' % ("😀".encode() + b"x" * 15_000_000), id="15 MB of text"),
        pytest.param(b'{"GUID":"bad",%s}' % keys(500_000), id="half a million fields"),
    ],
)
def test_an_event_too_heavy_for_memory_is_a_line_and_costs_the_others_nothing(lab: Lab, event: bytes) -> None:
    clicks = b",".join(b'{"threatID":"%s"}' % name.encode() for name in lab.world.threats)
    lists = b'{"clicksPermitted":[%s],"messagesDelivered":[{"GUID":"good"},%s]}' % (clicks, event)
    body = gzip.compress(lists)
    lab.tap.faults.add(SIEM, Fault("body", body=body, headers={"Content-Encoding": "gzip"}))
    stats, growth, logged = run_heard(lab.env)
    assert growth < MOST_GROWTH
    assert (stats["gaps"], stats["threats_fetched"]) == (0, 28)
    written = b"\n".join(data for name, data in lab.bucket.objects().items() if name.startswith(EVENTS))
    assert written.count(b'"GUID":"good"') == 1
    assert written.count(b'"GUID":"bad"') + written.count(b'"_bytes":%d' % len(event)) == 1
    assert not [line for line in logged if "ERROR" in line]


def test_a_siem_answer_too_heavy_for_memory_is_asked_for_in_smaller_windows(lab: Lab) -> None:
    body = gzip.compress(b'{"messagesDelivered":[%s{}]}' % (b"{}," * 3_900_000))
    lab.tap.faults.add(SIEM, Fault("body", body=body, headers={"Content-Encoding": "gzip"}))
    stats, growth, logged = run_heard(lab.env)
    assert growth < MOST_GROWTH
    assert (stats["extra_calls"], stats["gaps"], stats["threats_fetched"]) == (2, 0, 28)
    assert not [line for line in logged if "ERROR" in line]
