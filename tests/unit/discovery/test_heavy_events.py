"""Events that are nested or filled without end: each costs only itself."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tap_forensics.discovery.siem import read_window
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.tap.windows import Window
from tests.support.clocks import NOW
from tests.unit.conftest import Client

SIEM = "/v2/siem/all"
WINDOW = Window(NOW - timedelta(hours=1), NOW)


@pytest.mark.parametrize(
    "deep",
    [b"[" * 120_000 + b"]" * 120_000, b'{"a":' * 48_000 + b"1" + b"}" * 48_000],
    ids=["lists", "objects"],
)
@pytest.mark.parametrize("broken_number", [b"1", b"9" * 5000])
def test_an_event_nested_without_end_costs_only_what_is_nested(
    server: TapServer, client: Client, deep: bytes, broken_number: bytes
) -> None:
    event = b'{"threatID":"deep","n":' + broken_number + b',"a":' + deep + b"}"
    body = b'{"clicksBlocked":[{"threatID":"before"},' + event + b',{"threatID":"after"}]}'
    server.faults.add(SIEM, Fault("body", body=body))
    with client() as tap:
        reading = read_window(tap, WINDOW, NOW, events=True)
    assert set(reading.threats) == {"before", "deep", "after"}
    assert len({event.fingerprint for event in reading.records}) == 3


def test_an_event_nested_deeper_than_python_goes_keeps_its_bytes_and_its_threats(
    server: TapServer, client: Client
) -> None:
    event = b'{"threatID":"t","n":' + b"9" * 5000 + b',"a":' + b"[" * 900 + b'"x"' + b"]" * 900 + b"}"
    server.faults.add(SIEM, Fault("body", body=b'{"clicksBlocked":[%s]}' % event))
    with client() as tap:
        reading = read_window(tap, WINDOW, NOW, events=True)
    assert set(reading.threats) == {"t"}
    assert [bytes(event.record) for event in reading.records] == [event]


@pytest.mark.parametrize("filling", [b"[]," * 3, b'{"a":0},', b"0.0," * 3])
def test_an_event_of_too_many_values_keeps_its_bytes_and_is_known_by_its_text(
    server: TapServer, client: Client, filling: bytes
) -> None:
    event = b'{"GUID":"g","a":[' + filling * 100_000 + b'0],"n":%d}'
    body = b'{"messagesBlocked":[%s,%s]}' % (event % 1, event % 2)
    server.faults.add(SIEM, Fault("body", body=body))
    with client() as tap:
        reading = read_window(tap, WINDOW, NOW, events=True)
    assert (reading.events, reading.odd) == (2, 2)
    assert [bytes(kept.record) for kept in reading.records] == [event % 1, event % 2]
    assert len({kept.fingerprint for kept in reading.records}) == 2
