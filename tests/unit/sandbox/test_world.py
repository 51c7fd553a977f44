from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.sandbox.messages import JUNK_ENTRIES
from tap_forensics.sandbox.reports import DOCUMENTED, UNDOCUMENTED
from tap_forensics.sandbox.world import EVENT_LISTS, Rates, World, campaign_sizes
from tests.unit.sandbox.conftest import NOW


def a_day(seed: int = 1) -> World:
    return World(seed, start=NOW - timedelta(days=1), end=NOW)


def entries(world: World) -> list[Any]:
    return [entry for event in world.events for entry in event.body.get("threatsInfoMap") or []]


def named(entry: Any) -> set[str]:
    if not isinstance(entry, dict):
        return set()
    return {entry[key] for key in ("threatID", "threatId") if isinstance(entry.get(key), str)}


def test_the_same_seed_makes_the_same_world_and_another_seed_another() -> None:
    assert a_day().events == a_day().events
    assert a_day().threats == a_day().threats
    assert a_day(2).threats.keys() != a_day(1).threats.keys()


def test_a_threats_answer_does_not_depend_on_what_was_asked_before() -> None:
    asked, fresh = a_day(), a_day()
    first, second = list(asked.threats)[:2]
    asked.forensics_bytes(second, True)
    assert asked.forensics_bytes(first, True) == fresh.forensics_bytes(first, True)


def test_every_threat_of_an_event_stands_in_its_body_and_no_other() -> None:
    for event in a_day().events:
        found = named(event.body).union(*map(named, event.body.get("threatsInfoMap") or []))
        assert found == set(event.threat_ids), event


def test_a_day_has_every_kind_of_event_and_every_oddity() -> None:
    world = a_day()
    bodies = [event.body for event in world.events]
    keys = {key for entry in entries(world) if isinstance(entry, dict) for key in entry}
    guids = Counter(body["GUID"] for body in bodies)
    met = Counter(name for event in world.events for name in event.threat_ids)
    assert {event.kind for event in world.events} == set(EVENT_LISTS)
    assert {"threatID", "threatId", "campaignID", "campaignId"} <= keys
    assert any(entry in JUNK_ENTRIES for entry in entries(world))
    assert any("id" not in body for body in bodies)
    assert any(body["sender"] == "" and body.get("subject") is None for body in bodies)
    assert max(guids.values()) > 1, "no mail has copies for several recipients"
    assert max(met.values()) > 1, "no threat occurs twice"
    assert any(event.indexed > event.created + timedelta(minutes=10) for event in world.events)
    assert {threat.answer for threat in world.threats.values()} == {"report", "empty", "unknown"}


def test_reports_have_both_scopes_and_every_type_of_evidence() -> None:
    world = a_day()
    answers = [world.forensics(name, include_campaign=True) or {"reports": []} for name in world.threats]
    reports = [report for answer in answers for report in answer["reports"]]
    assert {report["scope"] for report in reports} == {"THREAT", "CAMPAIGN"}
    assert {item["type"] for report in reports for item in report["forensics"]} == {
        *DOCUMENTED,
        *UNDOCUMENTED,
    }


def test_evidence_has_the_types_of_values_that_live_answers_have() -> None:
    world = a_day()
    answers = [world.forensics(name) or {"reports": []} for name in world.threats]
    items = [item for answer in answers for report in answer["reports"] for item in report["forensics"]]
    assert {type(item["what"]["port"]) for item in items if item["type"] == "network"} == {int, str}
    assert {type(item["what"]["blacklisted"]) for item in items if item["type"] == "url"} == {int, bool}
    assert any("malicious" not in item for item in items)


def test_a_campaign_comes_only_when_asked_for_and_alike_for_each_of_its_threats() -> None:
    world = World.from_threats(4, now=NOW, campaigns=1, report_bytes=2_000, campaign_report_bytes=5_000)
    answers = [world.forensics(name, include_campaign=True) for name in world.threats]
    assert len({json.dumps(answer["reports"][1]) for answer in answers if answer}) == 1
    alone = world.forensics(next(iter(world.threats)))
    assert alone
    assert [report["scope"] for report in alone["reports"]] == ["THREAT"]


def test_a_world_of_so_many_threats_shows_exactly_those_in_its_last_hour() -> None:
    world = World.from_threats(37, now=NOW, campaigns=2, threats_per_campaign=5)
    shown = world.threat_ids_between(NOW - timedelta(hours=1), NOW - timedelta(minutes=5), now=NOW)
    assert shown == set(world.threats)
    assert len(shown) == 37
    assert Counter(t.campaign is not None for t in world.threats.values()) == {True: 10, False: 27}


def test_reports_have_about_the_size_that_was_asked_for() -> None:
    world = World.from_threats(1, now=NOW, campaigns=1, report_bytes=40_000, campaign_report_bytes=400_000)
    name = next(iter(world.threats))
    assert 40_000 <= len(world.forensics_bytes(name) or b"") < 42_000
    assert 440_000 <= len(world.forensics_bytes(name, include_campaign=True) or b"") < 443_000


def test_events_are_shown_only_from_their_indexing_on() -> None:
    world = World(1, start=NOW - timedelta(hours=1), end=NOW, messages_per_hour=0, clicks_per_hour=0)
    created = NOW - timedelta(minutes=40)
    late = world.add_event("messagesBlocked", ["ab" * 32], created=created, indexed=NOW)
    hour = (NOW - timedelta(hours=1), NOW)
    assert world.events_between(*hour, now=NOW - timedelta(seconds=1)) == []
    assert world.events_between(*hour, now=NOW) == [late]


def test_windows_are_half_open() -> None:
    world = World(1, start=NOW, end=NOW, odds=Rates(oddity=0))
    event = world.add_event("messagesBlocked", ["ab" * 32], created=NOW)
    assert world.events_between(NOW, NOW + timedelta(seconds=30)) == [event]
    assert world.events_between(NOW - timedelta(seconds=30), NOW) == []


def test_a_world_with_campaigns_of_chosen_sizes_has_so_many_threats() -> None:
    sizes = campaign_sizes(280, 5, 60)
    world = World.from_threats(400, now=NOW, campaign_sizes=sizes)
    assert sum(sizes) == 280
    assert all(5 <= size <= 60 for size in sizes)
    assert [len(members) for members in world.members.values()] == sizes
    assert any(t.campaign for t in list(world.threats.values())[280:]), "members are not mixed with others"
    assert Counter(t.campaign is None for t in world.threats.values()) == {False: 280, True: 120}
    shown = world.threat_ids_between(NOW - timedelta(hours=1), NOW - timedelta(minutes=5), now=NOW)
    assert shown == set(world.threats)


def test_sizes_of_campaigns_keep_their_bounds_for_every_number_of_members() -> None:
    for members in range(5, 200):
        for seed in range(5):
            sizes = campaign_sizes(members, 5, 9, seed)
            assert sum(sizes) == members
            assert all(5 <= size <= 9 for size in sizes), (members, seed, sizes)


@pytest.mark.parametrize("impossible", [(4, 5, 60), (100, 5, 8)])
def test_sizes_that_cannot_be_kept_are_refused(impossible: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be divided"):
        campaign_sizes(*impossible)


def test_more_members_than_threats_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        World.from_threats(9, now=NOW, campaign_sizes=[10])


def test_threats_of_another_day_get_campaigns_of_their_own() -> None:
    world = World.from_threats(3, now=NOW, campaign_sizes=[2])
    day = (NOW, NOW + timedelta(days=1))
    added = world.add_threats(10, *day, campaign_sizes=[4, 2])
    assert world.threat_ids_between(*day) == {threat.id for threat in added}
    assert [len(members) for members in world.members.values()] == [2, 4, 2]
