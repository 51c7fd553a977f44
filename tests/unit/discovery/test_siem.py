from __future__ import annotations

import gzip
import json
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.discovery.siem import Reading, read_window
from tap_forensics.errors import Unavailable
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.storage.state import Threat
from tap_forensics.tap.windows import Window
from tests.support.clocks import NOW
from tests.unit.conftest import Client

SIEM = "/v2/siem/all"
WINDOW = Window(NOW - timedelta(hours=1), NOW)
CLICK = {"threatID": "click"}
LISTS = ("messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked")


@pytest.fixture
def read(server: TapServer, client: Client) -> Any:
    """Reads a window for which the API sends just these bytes, or this document."""

    def reading_of(body: bytes | dict[str, Any], **headers: str) -> Reading:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        server.faults.add(SIEM, Fault("body", body=sent, headers=headers))
        with client() as tap:
            return read_window(tap, WINDOW, NOW)

    return reading_of


def message(*entries: object) -> dict[str, object]:
    return {"GUID": "g", "threatsInfoMap": list(entries)}


def test_a_window_is_asked_for_as_json_with_its_interval(server: TapServer, client: Client) -> None:
    with client() as tap:
        assert read_window(tap, WINDOW, NOW) == Reading()
    (call,) = server.calls
    assert call.query == {"format": "json", "interval": "2026-03-04T09:00:00Z/2026-03-04T10:00:00Z"}


def test_every_threat_of_the_window_is_found_whatever_the_worlds_oddities(client: Client) -> None:
    world = World(7, start=NOW - timedelta(hours=1), end=NOW, messages_per_hour=300, clicks_per_hour=100)
    with TapServer(world, clock=lambda: NOW) as server, client(base=server.url) as tap:
        reading = read_window(tap, WINDOW, NOW)
    assert set(reading.threats) == world.threat_ids_between(WINDOW.start, WINDOW.end, NOW)
    assert reading.events == len(
        [
            event
            for event in world.events_between(WINDOW.start, WINDOW.end, NOW)
            if not event.threat_ids
            or any(world.threats[name].status != "falsePositive" for name in event.threat_ids)
        ]
    )


@pytest.mark.parametrize("spelling", ["threatID", "threatId"])
def test_both_spellings_of_a_threats_id_are_read(read: Any, spelling: str) -> None:
    reading = read({"messagesBlocked": [message({spelling: "m"})], "clicksBlocked": [{spelling: "c"}]})
    assert set(reading.threats) == {"m", "c"}


@pytest.mark.parametrize("spelling", ["campaignID", "campaignId"])
def test_both_spellings_of_a_campaigns_id_are_read(read: Any, spelling: str) -> None:
    reading = read(
        {
            "messagesBlocked": [message({"threatID": "m", spelling: "c1"})],
            "clicksBlocked": [CLICK | {spelling: "c2"}],
        }
    )
    assert (reading.threats["m"].campaign, reading.threats["click"].campaign) == ("c1", "c2")


def test_where_one_spelling_is_of_no_use_the_other_is_taken(read: Any) -> None:
    reading = read(
        {
            "clicksBlocked": [
                {"threatID": None, "threatId": "a"},
                {"threatID": 5, "threatId": "b"},
                {"threatID": "", "threatId": "c"},
            ]
        }
    )
    assert set(reading.threats) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("name", "priority"),
    [("clicksPermitted", 0), ("messagesDelivered", 1), ("messagesBlocked", 2), ("clicksBlocked", 2)],
)
def test_a_threats_priority_is_that_of_its_list(read: Any, name: str, priority: int) -> None:
    record = message({"threatID": "t"}) if name.startswith("messages") else {"threatID": "t"}
    assert read({name: [record]}).threats == {"t": Threat(priority=priority, first_seen=NOW, last_seen=NOW)}


def test_a_threat_met_twice_takes_the_better_priority_and_the_campaign(read: Any) -> None:
    reading = read(
        {
            "messagesBlocked": [message({"threatID": "t", "campaignID": "c1"}), message({"threatID": "t"})],
            "clicksPermitted": [{"threatID": "t"}],
        }
    )
    assert reading.threats == {"t": Threat(priority=0, first_seen=NOW, last_seen=NOW, campaign="c1")}
    assert reading.events == 3


@pytest.mark.parametrize(
    "body",
    [
        {"clicksBlocked": None},
        dict.fromkeys(LISTS),
        {name: [] for name in LISTS},
        {"queryEndTime": "x", "new": 5},
    ],
)
def test_empty_null_and_absent_lists_are_no_events(read: Any, body: dict[str, Any]) -> None:
    assert read(body) == Reading()


def test_no_content_is_no_events(server: TapServer, client: Client) -> None:
    server.faults.add(SIEM, Fault("status", status=204, body=b""))
    with client() as tap:
        assert read_window(tap, WINDOW, NOW) == Reading()


@pytest.mark.parametrize("label", ["text/plain", "application/octet-stream", "", "text/html; charset=utf-16"])
def test_what_the_answer_calls_itself_is_no_matter(read: Any, label: str) -> None:
    assert set(read({"clicksBlocked": [CLICK]}, **{"Content-Type": label}).threats) == {"click"}


def test_a_packed_answer_is_unpacked(read: Any) -> None:
    packed = gzip.compress(json.dumps({"clicksBlocked": [CLICK]}).encode())
    assert set(read(packed, **{"Content-Encoding": "gzip"}).threats) == {"click"}


def test_a_byte_order_mark_is_passed_over(read: Any) -> None:
    assert set(read(b'\xef\xbb\xbf{"clicksBlocked":[{"threatID":"t"}]}').threats) == {"t"}


def test_bytes_that_are_no_utf8_cost_nothing_but_themselves(read: Any) -> None:
    body = b'{"clicksBlocked":[{"threatID":"a","url":"\xff\xfe"},{"threatID":"b"}]}'
    assert set(read(body).threats) == {"a", "b"}


def test_a_lone_surrogate_costs_nothing_but_itself(read: Any) -> None:
    body = rb'{"clicksBlocked":[{"threatID":"a","url":"\ud800"},{"threatID":"b\udc00"}]}'
    assert set(read(body).threats) == {"a", "b\ufffd"}


STRANGE_RECORDS: list[object] = [
    None,
    5,
    "text",
    [],
    {},
    {"threatID": None},
    {"threatID": 5},
    {"threatID": ""},
    {"threatID": ["t"]},
    {"threatID": {"id": "t"}},
    {"threatID": "x" * 257},
    {"threatid": "t"},
]


@pytest.mark.parametrize("strange", STRANGE_RECORDS, ids=str)
def test_a_strange_click_costs_only_itself_and_is_counted(read: Any, strange: object) -> None:
    reading = read({"clicksPermitted": [CLICK, strange, {"threatId": "after"}]})
    assert (set(reading.threats), reading.odd, reading.events) == ({"click", "after"}, 1, 3)


@pytest.mark.parametrize("strange", STRANGE_RECORDS, ids=str)
def test_a_strange_entry_of_a_message_costs_only_itself_and_is_counted(read: Any, strange: object) -> None:
    reading = read({"messagesDelivered": [message({"threatID": "a"}, strange, {"threatID": "b"})]})
    assert (set(reading.threats), reading.odd, reading.events) == ({"a", "b"}, 1, 1)


@pytest.mark.parametrize(
    "strange",
    [None, 5, "text", [], {"threatsInfoMap": {}}, {"threatsInfoMap": "t"}, {"threatsInfoMap": 5}],
    ids=str,
)
def test_a_strange_message_costs_only_itself_and_is_counted(read: Any, strange: object) -> None:
    reading = read({"messagesDelivered": [message({"threatID": "a"}), strange, message({"threatID": "b"})]})
    assert (set(reading.threats), reading.odd, reading.events) == ({"a", "b"}, 1, 3)


@pytest.mark.parametrize(
    "stub", [{}, {"threatsInfoMap": None}, {"threatsInfoMap": [], "sender": "", "GUID": None}]
)
def test_a_stub_message_without_threats_is_not_odd(read: Any, stub: dict[str, Any]) -> None:
    assert read({"messagesDelivered": [stub]}) == Reading(events=1)


@pytest.mark.parametrize("campaign", [5, "", [], {}, "x" * 257, True])
def test_a_campaign_of_a_wrong_type_does_not_cost_its_threat(read: Any, campaign: object) -> None:
    threat = Threat(priority=2, first_seen=NOW, last_seen=NOW)
    assert read({"clicksBlocked": [CLICK | {"campaignId": campaign}]}).threats == {"click": threat}


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 5000])
def test_a_number_out_of_range_does_not_cost_the_threat_beside_it(read: Any, number: bytes) -> None:
    body = b'{"clicksBlocked":[{"threatID":"t","campaignId":' + number + b',"threatId":' + number + b"}]}"
    assert set(read(body).threats) == {"t"}


@pytest.mark.parametrize(
    "hostile", ["a&b=c", "../..", "a/b?c#d", "a\nb\r\n", "\x00", "<script>", "ü😀", "\u202e", " ", "x" * 256]
)
def test_a_hostile_id_is_carried_as_it_is(read: Any, hostile: str) -> None:
    reading = read(
        {"clicksBlocked": [{"threatID": hostile}], "messagesBlocked": [message({"threatID": hostile})]}
    )
    assert set(reading.threats) == {hostile}


def test_fields_that_nobody_knows_are_no_matter(read: Any) -> None:
    body = rb'{"clicksBlocked":[{"a":1e999,"b":"\u0000","c":{"c":1,"c":2},"threatID":"t","d":-0.0}]}'
    assert set(read(body).threats) == {"t"}


def test_a_field_given_twice_is_read_as_its_last_value(read: Any) -> None:
    assert set(read(b'{"clicksBlocked":[{"threatID":"a","threatID":"b"}]}').threats) == {"b"}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("wrong", [{}, "text", 5, True], ids=str)
def test_a_list_of_a_wrong_type_makes_the_answer_unusable(read: Any, name: str, wrong: object) -> None:
    with pytest.raises(Unavailable):
        read({name: wrong})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"message":"HTTP 404 Not Found"}',
        b'{"error":{"clicksBlocked":[]}}',
        b"<html>busy</html>",
        b'{"clicksBlocked":[',
        b'{"clicksBlocked":[]}{}',
        b'{"clicksBlocked":[{"threatID":"\x01"}]}',
        b'{"clicksBlocked":[NaN]}',
        b'{"clicksBlocked":' + b"[" * 100_000,
        b'{"clicksBlocked":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}",
    ],
    ids=range(13),
)
def test_an_unreadable_answer_is_one_that_could_not_be_had(read: Any, body: bytes) -> None:
    with pytest.raises(Unavailable):
        read(body)


def test_an_answer_of_many_megabytes_gives_its_place_back(server: TapServer, client: Client) -> None:
    body = json.dumps({"clicksBlocked": [CLICK | {"url": "x" * 3_000_000}]}).encode()
    server.faults.add(SIEM, Fault("body", body=body, times=3))
    with client() as tap:
        for _ in range(3):
            assert set(read_window(tap, WINDOW, NOW).threats) == {"click"}


def test_an_unreadable_answer_of_many_megabytes_gives_its_place_back(
    server: TapServer, client: Client
) -> None:
    server.faults.add(SIEM, Fault("body", body=b"x" * 3_000_000, times=2))
    with client() as tap:
        for _ in range(2):
            with pytest.raises(Unavailable):
                read_window(tap, WINDOW, NOW)
