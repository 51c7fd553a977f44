from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import urllib3

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import EVENT_LISTS, World
from tests.unit.sandbox.conftest import CREDENTIALS, NOW, Ask, between, iso

HOUR = (NOW - timedelta(hours=2), NOW - timedelta(hours=1))


def set_clock(server: TapServer, moment: datetime) -> None:
    server.clock = lambda: moment


def a_report_id(world: World) -> str:
    return next(name for name, threat in world.threats.items() if threat.answer == "report")


def found_ids(answer: dict[str, Any]) -> set[str]:
    """Reads both spellings, and survives every oddity: what a client has to do."""
    bodies = [body for kind in EVENT_LISTS for body in answer.get(kind) or []]
    places = [*bodies, *(entry for body in bodies for entry in body.get("threatsInfoMap") or [])]
    values = [
        place.get(key) for place in places if isinstance(place, dict) for key in ("threatID", "threatId")
    ]
    return {value for value in values if isinstance(value, str)}


@pytest.mark.parametrize("headers", [{}, urllib3.make_headers(basic_auth="demo-principal:wrong")])
def test_without_the_right_credentials_there_is_401(ask: Ask, headers: dict[str, str]) -> None:
    assert ask("/v2/siem/all", between(*HOUR), headers).status == 401


def test_an_hour_shows_just_the_events_of_the_world(ask: Ask, world: World) -> None:
    answer = ask("/v2/siem/all", between(*HOUR)).json()
    assert found_ids(answer) == world.threat_ids_between(*HOUR, now=NOW)
    assert answer["queryEndTime"] == iso(HOUR[1])


def test_an_event_not_indexed_yet_comes_with_a_later_request(
    ask: Ask, server: TapServer, world: World
) -> None:
    created, shown = NOW - timedelta(minutes=90), NOW + timedelta(seconds=1)
    world.add_event("clicksBlocked", ["cd" * 32], created=created, indexed=shown)
    assert "cd" * 32 not in found_ids(ask("/v2/siem/all", between(*HOUR)).json())
    server.clock = lambda: shown
    assert "cd" * 32 in found_ids(ask("/v2/siem/all", between(*HOUR)).json())


def test_a_campaign_is_null_until_it_is_linked(ask: Ask, server: TapServer, world: World) -> None:
    event = next(e for e in world.events if e.linked > e.created and world.threats[e.threat_ids[0]].campaign)
    start = event.created.replace(microsecond=0)
    window = between(start, start + timedelta(seconds=30))

    def campaigns(at: datetime) -> str:
        server.clock = lambda: at
        return json.dumps(ask("/v2/siem/all", window).json())

    campaign = str(world.threats[event.threat_ids[0]].campaign)
    assert campaign not in campaigns(event.linked - timedelta(seconds=1))
    assert campaign in campaigns(event.linked + timedelta(minutes=30))


def test_message_parts_and_events_change_their_order_from_answer_to_answer(ask: Ask) -> None:
    answers = {ask("/v2/siem/all", between(*HOUR)).data for _ in range(4)}
    assert len(answers) > 1


def test_empty_lists_come_as_lists_as_null_or_not_at_all(ask: Ask) -> None:
    quiet = (NOW - timedelta(days=2), NOW - timedelta(days=2) + timedelta(minutes=1))
    answers = [ask("/v2/siem/all", between(*quiet)).json() for _ in range(12)]
    assert {repr(answer.get(kind, "absent")) for answer in answers for kind in EVENT_LISTS} == {
        "[]",
        "None",
        "'absent'",
    }


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/v2/siem/messages/delivered", {"messagesDelivered"}),
        ("/v2/siem/messages/blocked", {"messagesBlocked"}),
        ("/v2/siem/clicks/permitted", {"clicksPermitted"}),
        ("/v2/siem/clicks/blocked", {"clicksBlocked"}),
        ("/v2/siem/issues", {"messagesDelivered", "clicksPermitted"}),
    ],
)
def test_each_endpoint_has_its_own_lists(ask: Ask, path: str, keys: set[str]) -> None:
    answer = ask(path, between(*HOUR)).json()
    assert answer.keys() - {"queryEndTime"} <= keys


def test_without_format_json_the_answer_is_syslog(ask: Ask) -> None:
    answer = ask("/v2/siem/all", {"interval": between(*HOUR)["interval"]})
    assert answer.status == 200
    assert answer.data.startswith(b"<38>1 ")


def test_false_positives_come_only_when_asked_for(ask: Ask, world: World) -> None:
    threat = world.add_threat(status="falsePositive")
    world.add_event("messagesBlocked", [threat.id], created=NOW - timedelta(minutes=90))
    plain = ask("/v2/siem/all", between(*HOUR)).json()
    asked = ask("/v2/siem/all", between(*HOUR) | {"threatStatus": "falsePositive"}).json()
    assert threat.id not in found_ids(plain)
    assert threat.id in found_ids(asked)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v2/siem/all", {"format": "json"}),
        ("/v2/siem/all", between(*HOUR) | {"format": "xml"}),
        ("/v2/siem/all", between(*HOUR) | {"treatStatus": "active"}),
        ("/v2/siem/all", between(NOW - timedelta(minutes=5), NOW + timedelta(seconds=1))),
        ("/v2/forensics", {}),
        ("/v2/forensics", {"threatId": "not-hex"}),
        ("/v2/forensics", {"threatId": "ab" * 32, "includeCampaignForensics": "yes"}),
        ("/v2/forensics", {"threatId": "ab" * 32, "campaignId": "0" * 8}),
        (
            "/v2/forensics",
            {"campaignId": "11111111-2222-3333-4444-555555555555", "includeCampaignForensics": "true"},
        ),
    ],
)
def test_a_wrong_request_gets_400_and_a_sentence(ask: Ask, path: str, query: dict[str, str]) -> None:
    answer = ask(path, query)
    assert answer.status == 400
    assert len(answer.data) > 10


def test_a_plus_sign_that_was_not_encoded_is_refused(server: TapServer) -> None:
    start, end = (moment.isoformat() for moment in HOUR)
    url = f"{server.url}/v2/siem/all?format=json&interval={start}/{end}"
    with urllib3.PoolManager(retries=False, headers=CREDENTIALS) as pool:
        assert pool.request("GET", url).status == 400
        assert pool.request("GET", url.replace("+", "%2B")).status == 200


def test_forensics_answers_by_threat_and_by_campaign(ask: Ask, world: World) -> None:
    name = next(n for n, t in world.threats.items() if t.answer == "report" and t.campaign)
    both = ask("/v2/forensics", {"threatId": name, "includeCampaignForensics": "true"}).json()
    alone = ask("/v2/forensics", {"campaignId": str(world.threats[name].campaign)}).json()
    assert both == world.forensics(name, include_campaign=True)
    assert alone["reports"] == both["reports"][1:]


@pytest.mark.parametrize("answer", ["unknown", "empty"])
def test_forensics_knows_threats_without_a_report(ask: Ask, world: World, answer: str) -> None:
    threat = world.add_threat(answer=answer)
    got = ask("/v2/forensics", {"threatId": threat.id})
    assert (got.status == 404) if answer == "unknown" else (got.json()["reports"] == [])


def test_an_answer_is_packed_only_for_who_takes_it_and_the_same_twice(ask: Ask, world: World) -> None:
    query = {"threatId": a_report_id(world)}
    takes = CREDENTIALS | {"accept-encoding": "gzip"}
    plain, *packed = ask("/v2/forensics", query), *(ask("/v2/forensics", query, takes) for _ in range(2))
    assert "content-encoding" not in plain.headers
    assert [answer.headers["content-encoding"] for answer in packed] == ["gzip", "gzip"]
    assert [answer.data for answer in packed] == [plain.data, plain.data]
    assert gzip.compress(plain.data) != plain.data


def test_quotas_refuse_without_advice_and_come_back_call_by_call(ask: Ask, server: TapServer) -> None:
    server.quotas["siem"].limit = 2
    statuses = []
    for hours in (0, 1, 2, 24, 24.5, 25):
        set_clock(server, NOW + timedelta(hours=hours))
        answer = ask("/v2/siem/all", {"format": "json", "sinceSeconds": "60"})
        statuses.append(answer.status)
        assert "retry-after" not in answer.headers
    assert statuses == [200, 200, 429, 200, 429, 200]


@pytest.mark.parametrize(("counted", "status"), [(False, 200), (True, 429)])
def test_refused_calls_count_only_if_told_so(ask: Ask, server: TapServer, counted: bool, status: int) -> None:
    server.quotas["siem"].limit, server.refused_calls_count = 1, counted
    for hours in (0, 23):
        set_clock(server, NOW + timedelta(hours=hours))
        ask("/v2/siem/all", {"format": "json", "sinceSeconds": "60"})
    server.clock = lambda: NOW + timedelta(hours=24)
    assert ask("/v2/siem/all", {"format": "json", "sinceSeconds": "60"}).status == status


def test_the_quotas_are_pools_of_their_own(ask: Ask, server: TapServer, world: World) -> None:
    for quota in server.quotas.values():
        quota.limit = 1
    window = between(*HOUR)
    name = a_report_id(world)
    assert ask("/v2/siem/all", window).status == 200
    assert ask("/v2/siem/messages/blocked", window).status == 429
    assert ask("/v2/siem/clicks/permitted", window).status == 200
    assert ask("/v2/forensics", {"threatId": name}).status == 200
    assert ask("/v2/forensics", {"threatId": name}).status == 429
    assert ask("/v2/forensics", {"campaignId": world.campaigns[0]}).status == 200
    server.reset_quota()
    assert ask("/v2/forensics", {"threatId": name}).status == 200


def test_the_journal_has_each_call_and_no_credentials(ask: Ask, server: TapServer) -> None:
    ask("/v2/siem/all", between(*HOUR), CREDENTIALS | {"user-agent": "a test"})
    (call,) = server.calls_to("/v2/siem/all")
    assert (call.status, call.query, call.in_flight) == (200, between(*HOUR), 1)
    assert call.headers["user-agent"] == "a test"
    assert "authorization" not in call.headers


def test_the_journal_counts_the_calls_under_way(
    ask: Ask, raw: Callable[[str], socket.socket], server: TapServer
) -> None:
    server.faults.add("/v2/forensics", Fault("hang", times=3))
    for _ in range(3):
        raw("/v2/forensics?threatId=x")
    deadline = time.monotonic() + 5
    while len(server.calls) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    ask("/v2/siem/all", between(*HOUR))
    assert [call.in_flight for call in server.calls] == [1, 2, 3, 4]


def test_the_stand_in_runs_as_a_process_of_its_own() -> None:
    command = [
        sys.executable,
        "-m",
        "tap_forensics.sandbox.tap_api",
        "--threats",
        "7",
        "--report-bytes",
        "900",
    ]
    # This Python, with arguments of ours.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout
        url = process.stdout.readline().strip()
        query = {"format": "json", "interval": between_now()}
        with urllib3.PoolManager(retries=False) as pool:
            answer = pool.request("GET", f"{url}/v2/siem/all", fields=query, headers=CREDENTIALS)
        process.terminate()
    assert len(found_ids(answer.json())) == 7
    assert process.returncode == 0


def between_now() -> str:
    end = datetime.now(NOW.tzinfo) - timedelta(minutes=1)
    return f"{iso(end - timedelta(minutes=59))}/{iso(end)}"
