"""Summaries of threats, and campaigns: what they say, and how strict the API is about them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import timedelta

import pytest
import urllib3

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.routes import CAMPAIGN, THREAT_SUMMARY
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import Verdict, World
from tests.unit.sandbox.conftest import CREDENTIALS, NOW, Ask, between
from tests.unit.sandbox.test_tap_api import found_ids, set_clock

HOUR = timedelta(hours=1)
FIELDS = {
    "id",
    "identifiedAt",
    "name",
    "type",
    "category",
    "status",
    "severity",
    "severityScore",
    "attackSpread",
    "notable",
    "verticallyTargeted",
    "geographicallyTargeted",
}
LISTS = ("actors", "families", "malware", "techniques", "brands")


def test_every_threat_has_a_summary_with_every_documented_field(ask: Ask, world: World) -> None:
    for name in list(world.threats)[:40]:
        summary = ask(THREAT_SUMMARY + name).json()
        assert summary.keys() >= {*FIELDS, *LISTS}
        assert 0 <= summary["severityScore"] <= 1000
        assert all(item.keys() == {"id", "name"} for key in LISTS for item in summary[key])


def test_summaries_are_the_same_for_the_same_seed(world: World) -> None:
    again = World(3, start=world.start, end=world.end)
    assert [world.summary(name, NOW) for name in world.threats] == [
        again.summary(name, NOW) for name in world.threats
    ]


@pytest.mark.parametrize(
    ("kind", "classification", "shown"),
    [
        ("url", "phish", ("url", "phish")),
        ("attachment", "MALWARE", ("attachment", "malware")),
        ("messageText", "impostor", ("message text", "impostor")),
    ],
)
def test_a_summary_fits_the_threats_events(
    ask: Ask, world: World, kind: str, classification: str, shown: tuple[str, str]
) -> None:
    threat = world.add_threat(kind=kind, classification=classification, artifact="x.example.com")
    for hours in (1, 2, 1.5):
        world.add_event("messagesDelivered", [threat.id], created=NOW - hours * HOUR)
    summary = ask(THREAT_SUMMARY + threat.id).json()
    assert (summary["type"], summary["category"]) == shown
    assert (summary["id"], summary["name"]) == (threat.id, "x.example.com")
    assert summary["identifiedAt"] == "2025-05-01T10:00:20.000Z"


def test_a_threat_has_a_summary_whether_or_not_it_has_a_report(ask: Ask, world: World) -> None:
    assert ask(THREAT_SUMMARY + world.add_threat(answer="unknown").id).status == 200
    assert ask(THREAT_SUMMARY + world.add_threat(has_summary=False).id).status == 404


def test_a_changed_status_shows_in_the_summary_and_in_later_events(
    ask: Ask, server: TapServer, world: World
) -> None:
    threat, hour = world.add_threat(), (NOW - 2 * HOUR, NOW - HOUR)
    world.add_event("clicksPermitted", [threat.id], created=hour[0])
    world.change_status(threat.id, "cleared", at=hour[0] + HOUR / 2)
    world.add_event("clicksPermitted", [threat.id], created=hour[0] + HOUR / 2)
    clicks = ask("/v2/siem/clicks/permitted", between(*hour)).json()["clicksPermitted"]
    told = {click["threatTime"]: click["threatStatus"] for click in clicks if threat.id in click.values()}
    assert [told[time] for time in sorted(told)] == ["active", "cleared"]
    assert ask(THREAT_SUMMARY + threat.id).json()["status"] == "cleared"
    set_clock(server, hour[0])
    assert ask(THREAT_SUMMARY + threat.id).json()["status"] == "active"


def test_later_events_of_a_false_positive_are_hidden(ask: Ask, world: World) -> None:
    threat, hour = world.add_threat(), (NOW - 2 * HOUR, NOW - HOUR)
    world.change_status(threat.id, "falsePositive", at=hour[0])
    world.add_event("clicksPermitted", [threat.id], created=hour[0])
    asked = between(*hour) | {"threatStatus": "falsePositive"}
    assert threat.id not in found_ids(ask("/v2/siem/all", between(*hour)).json())
    assert threat.id in found_ids(ask("/v2/siem/all", asked).json())
    assert threat.id not in world.threat_ids_between(*hour)


def test_a_verdict_on_an_event_shows_in_the_summary(ask: Ask, server: TapServer, world: World) -> None:
    threat = world.add_threat()
    event = world.add_event("clicksPermitted", [threat.id], created=NOW - HOUR)
    world.rejudge(event, Verdict(NOW, "cleared"), recreated=False)
    assert ask(THREAT_SUMMARY + threat.id).json()["status"] == "cleared"
    set_clock(server, NOW - timedelta(seconds=1))
    assert ask(THREAT_SUMMARY + threat.id).json()["status"] == "active"


def test_a_campaign_names_its_members_and_what_is_behind_them(ask: Ask, world: World) -> None:
    campaign = world.add_campaign(members=4)
    details = ask(CAMPAIGN + campaign).json()
    assert details.keys() >= {"id", "name", "description", "campaignMembers", *LISTS}
    members = world.members[campaign]
    assert [member["id"] for member in details["campaignMembers"]] == [threat.id for threat in members]
    for threat in members:
        summary = world.summary(threat.id, NOW)
        assert summary
        assert {key: summary[key] for key in LISTS} == {key: details[key] for key in LISTS}
    reports = ask("/v2/forensics", {"campaignId": campaign}).json()["reports"]
    assert (details["id"], details["name"]) == (reports[0]["id"], reports[0]["name"])


def test_a_campaign_names_a_member_once_its_first_event_was_created(
    ask: Ask, server: TapServer, world: World
) -> None:
    campaign = world.add_campaign()
    for hours in (2, 1):
        threat = world.add_threat(campaign=campaign)
        world.add_event("messagesDelivered", [threat.id], created=NOW - hours * HOUR)
    assert len(ask(CAMPAIGN + campaign).json()["campaignMembers"]) == 2
    set_clock(server, NOW - 1.5 * HOUR)
    assert len(ask(CAMPAIGN + campaign).json()["campaignMembers"]) == 1


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (THREAT_SUMMARY + "ab" * 32, {}, 404),
        (THREAT_SUMMARY + "AB" * 32, {}, 400),
        (THREAT_SUMMARY + "ab" * 31, {}, 400),
        (THREAT_SUMMARY + "ab" * 32, {"includeCampaignForensics": "true"}, 400),
        (THREAT_SUMMARY + "ab" * 32, {"threatId": "ab" * 32}, 400),
        (THREAT_SUMMARY, {}, 404),
        (THREAT_SUMMARY + "ab" * 32 + "/", {}, 404),
        ("/v2/threat/" + "ab" * 32, {}, 404),
        (CAMPAIGN + "11111111-2222-4333-8444-555555555555", {}, 404),
        (CAMPAIGN + "11111111-2222-4333-8444-555555555555", {"format": "json"}, 400),
        (CAMPAIGN + "c1", {}, 400),
        (CAMPAIGN, {}, 404),
    ],
)
def test_wrong_requests_are_refused(ask: Ask, path: str, query: dict[str, str], status: int) -> None:
    answer = ask(path, query)
    assert answer.status == status
    assert status == 400 or answer.json() == {"message": "HTTP 404 Not Found"}


def test_credentials_and_method_are_checked_first(ask: Ask, server: TapServer, world: World) -> None:
    path = THREAT_SUMMARY + next(iter(world.threats))
    assert ask(path, headers={}).status == 401
    with urllib3.PoolManager(retries=False, headers=CREDENTIALS) as pool:
        assert pool.request("POST", server.url + path).status == 405


def test_a_path_is_decoded_exactly_once(
    raw: Callable[[str], socket.socket], server: TapServer, world: World
) -> None:
    for name in ("a/b?c#d", "a%2Fb"):
        world.add_threat(name)
    targets = {"a%2Fb%3Fc%23d": b"200", "a%252Fb": b"200", "a%2Fb": b"400", "a/b%3Fc%23d": b"404"}
    for target, status in targets.items():
        assert raw(THREAT_SUMMARY + target).recv(12).endswith(status), target
    assert [call.asked_id for call in server.calls_to(THREAT_SUMMARY)] == ["a/b?c#d", "a%2Fb", "a/b", None]


def test_a_summary_is_packed_like_every_other_answer(ask: Ask, server: TapServer, world: World) -> None:
    threat = world.add_threat()
    world.summary_overrides[threat.id] = json.dumps({"id": threat.id, "name": "x" * 2000}).encode()
    takes = CREDENTIALS | {"accept-encoding": "gzip"}
    packed = ask(THREAT_SUMMARY + threat.id, headers=takes)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.data == world.summary_overrides[threat.id]
    server.gzip = False
    assert "content-encoding" not in ask(THREAT_SUMMARY + threat.id, headers=takes).headers


def test_faults_meet_all_summaries_or_one(ask: Ask, server: TapServer, world: World) -> None:
    first, second = list(world.threats)[:2]
    server.faults.add(THREAT_SUMMARY, Fault("status", status=502), threat_id=second)
    server.faults.add(THREAT_SUMMARY + first, Fault("status", status=503))
    server.faults.add(THREAT_SUMMARY, Fault("status", status=500))
    paths = [THREAT_SUMMARY + first, THREAT_SUMMARY + first, THREAT_SUMMARY + second, THREAT_SUMMARY + second]
    assert [ask(path).status for path in paths] == [503, 500, 502, 200]


def test_a_fault_for_a_threat_meets_its_summary_only_where_told(
    ask: Ask, server: TapServer, world: World
) -> None:
    name = next(n for n, t in world.threats.items() if t.answer == "report")
    server.faults.add("/v2/forensics", Fault("status"), threat_id=name)
    assert ask(THREAT_SUMMARY + name).status == 200
    assert ask("/v2/forensics", {"threatId": name}).status == 503
