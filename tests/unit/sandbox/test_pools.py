"""The three types of forensics requests: what each answers, and the pool that it counts in."""

from __future__ import annotations

from datetime import timedelta

import pytest
import urllib3

from tap_forensics.sandbox.routes import CAMPAIGN, THREAT_SUMMARY
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tests.unit.sandbox.conftest import CREDENTIALS, NOW, Ask, between

FORENSICS = "/v2/forensics"
UNKNOWN_CAMPAIGN = "11111111-2222-4333-8444-555555555555"


def three_types(world: World) -> dict[str, dict[str, str]]:
    """One request of each type, by its pool."""
    campaign = world.add_campaign(members=1)
    threat_id = world.members[campaign][0].id
    return {
        "forensics": {"threatId": threat_id, "includeCampaignForensics": "true"},
        "threat_forensics": {"threatId": threat_id},
        "campaign_forensics": {"campaignId": campaign},
    }


def test_each_type_of_request_has_a_limit_of_its_own(ask: Ask, server: TapServer, world: World) -> None:
    queries = three_types(world)
    for limit, pool in enumerate(queries, start=1):
        server.quotas[pool].limit = limit
    statuses = {pool: [ask(FORENSICS, query).status for _ in range(4)] for pool, query in queries.items()}
    assert statuses == {
        "forensics": [200, 429, 429, 429],
        "threat_forensics": [200, 200, 429, 429],
        "campaign_forensics": [200, 200, 200, 429],
    }


def test_a_limit_of_one_type_leaves_all_other_requests_alone(
    ask: Ask, server: TapServer, world: World
) -> None:
    queries = three_types(world)
    server.quotas["threat_forensics"].limit = 0
    assert ask(FORENSICS, queries.pop("threat_forensics")).status == 429
    assert {ask(FORENSICS, query).status for query in queries.values()} == {200}
    assert ask("/v2/siem/all", between(NOW - timedelta(hours=2), NOW - timedelta(hours=1))).status == 200


def test_campaign_forensics_asked_for_as_false_counts_as_the_threat_alone(
    ask: Ask, server: TapServer, world: World
) -> None:
    query = three_types(world)["threat_forensics"] | {"includeCampaignForensics": "false"}
    server.quotas["forensics"].limit = 0
    assert len(ask(FORENSICS, query).json()["reports"]) == 1


def test_both_types_by_threat_may_share_a_limit(world: World) -> None:
    queries = three_types(world)
    with (
        TapServer(world, forensics_limit=3, campaign_forensics_limit=1, shared_threat_pool=True) as server,
        urllib3.PoolManager(retries=False, headers=CREDENTIALS) as pool,
    ):
        url = f"{server.url}{FORENSICS}"
        statuses = {
            name: [pool.request("GET", url, fields=query).status for _ in range(2)]
            for name, query in queries.items()
        }
    assert statuses == {
        "forensics": [200, 200],
        "threat_forensics": [200, 429],
        "campaign_forensics": [200, 429],
    }


def test_limits_are_given_to_the_server_by_type(world: World) -> None:
    limits = {"forensics": 5, "threat_forensics": 50, "campaign_forensics": 1800}
    server = TapServer(
        world, forensics_limit=5, threat_forensics_limit=50, campaign_forensics_limit=1800, siem_limit=None
    )
    with server:
        assert {pool: server.quotas[pool].limit for pool in limits} == limits
        assert server.quotas["siem"].limit is None


def test_summaries_and_campaigns_have_no_limit(ask: Ask, server: TapServer, world: World) -> None:
    for quota in server.quotas.values():
        quota.limit = 0
    campaign = world.add_campaign(members=1)
    assert ask(THREAT_SUMMARY + world.members[campaign][0].id).status == 200
    assert ask(CAMPAIGN + campaign).status == 200


def test_the_journal_tells_the_types_and_their_ids_apart(ask: Ask, server: TapServer, world: World) -> None:
    queries = three_types(world)
    for query in queries.values():
        ask(FORENSICS, query)
    threat_id, campaign = queries["threat_forensics"]["threatId"], queries["campaign_forensics"]["campaignId"]
    ask(THREAT_SUMMARY + threat_id)
    asked = {pool: [call.asked_id for call in server.calls_in(pool)] for pool in queries}
    assert asked == {
        "forensics": [threat_id],
        "threat_forensics": [threat_id],
        "campaign_forensics": [campaign],
    }
    assert [call.asked_id for call in server.calls_to(THREAT_SUMMARY)] == [threat_id]
    assert len(server.calls_to(THREAT_SUMMARY + threat_id)) == 1
    assert server.calls_to(THREAT_SUMMARY.rstrip("/")) == []
    assert len(server.calls_to(FORENSICS)) == 3


def test_all_members_of_a_campaign_come_with_the_report_that_the_campaign_has(ask: Ask, world: World) -> None:
    campaign = world.add_campaign(members=3)
    alone = ask(FORENSICS, {"campaignId": campaign}).json()
    assert alone.keys() == {"generated", "reports"}
    assert [(report["scope"], report["id"]) for report in alone["reports"]] == [("CAMPAIGN", campaign)]
    for member in world.members[campaign]:
        query = {"threatId": member.id, "includeCampaignForensics": "true"}
        assert ask(FORENSICS, query).json()["reports"][1:] == alone["reports"]


def test_an_unknown_campaign_is_not_found(ask: Ask) -> None:
    answer = ask(FORENSICS, {"campaignId": UNKNOWN_CAMPAIGN})
    assert (answer.status, answer.json()) == (404, {"message": "HTTP 404 Not Found"})


def test_a_campaigns_answer_can_be_overridden(ask: Ask, world: World) -> None:
    campaign = world.add_campaign()
    world.overrides[campaign] = b'{"reports":[]}'
    assert ask(FORENSICS, {"campaignId": campaign}).data == b'{"reports":[]}'


@pytest.mark.parametrize(
    "campaign", ["campaign-1", UNKNOWN_CAMPAIGN.replace("-", ""), UNKNOWN_CAMPAIGN + "0", ""]
)
def test_what_is_no_uuid_is_refused(ask: Ask, campaign: str) -> None:
    answer = ask(FORENSICS, {"campaignId": campaign})
    assert (answer.status, answer.data) == (400, b"The campaignId is malformed")
