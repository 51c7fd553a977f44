"""Three pools of forensics calls: a limit closes only its own pool, and no threat waits without need."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.http_messages import Request
from tap_forensics.sandbox.world import World
from tests.support.lab import FORENSICS, START, Lab, open_lab
from tests.support.scenes import GONE, JSON, lasting, once_each
from tests.support.world_faults import run_and_die

SIEM_POOL = "siem"


def campaigns_of(*sizes: int, alone: int = 0) -> World:
    """Campaigns with so many members, mixed with threats without one."""
    return World.from_threats(
        sum(sizes) + alone, now=START, campaign_sizes=sizes, report_bytes=500, campaign_report_bytes=800
    )


def calls(lab: Lab) -> Counter[str]:
    return Counter(call.pool for call in lab.tap.calls if call.pool not in (None, SIEM_POOL))


def refused(lab: Lab) -> int:
    return sum(call.status == 429 for call in lab.tap.calls)


def campaigns_delivered(lab: Lab) -> Counter[str]:
    return Counter(line["id"] for line in lab.lines() if line["scope"] == "CAMPAIGN")


def asks_for_campaign(request: Request) -> bool:
    return "campaignId" in request.query


def test_a_run_that_meets_the_first_limit_goes_on_with_the_other_pools() -> None:
    with open_lab(campaigns_of(10, 10, alone=10)) as lab:
        lab.tap.quotas["forensics"].limit = 5
        lab.run()
        assert calls(lab)["campaign_forensics"] <= 2
        assert set(campaigns_delivered(lab)) == set(lab.world.campaigns)
        assert once_each(lab)


def test_few_threats_use_the_other_type_of_call_if_the_usual_one_has_none_left() -> None:
    with open_lab(campaigns_of(alone=3)) as lab:
        lab.tap.quotas["forensics"].limit = 0
        lab.run()
        assert once_each(lab)


def test_a_limit_that_both_types_share_is_counted_once_when_campaigns_are_put_first() -> None:
    with open_lab(campaigns_of(5, 5, alone=10), TAP_FORENSICS_DAILY_LIMIT="12") as lab:
        lab.run()
        assert calls(lab)["campaign_forensics"] == 2
        assert calls(lab)["forensics"] == 0
        alone = {name for name, threat in lab.world.threats.items() if not threat.campaign}
        assert alone <= set(lab.delivered())


def test_a_limit_that_is_known_is_tested_by_one_call_also_at_the_end_of_what_was_left() -> None:
    with open_lab(campaigns_of(alone=8), CAMPAIGN_FIRST="off") as lab:
        lab.tap.quotas["forensics"].limit = 3
        lab.run()
        lab.tap.forget_calls()
        lab.clock.step(hours=25)
        lab.run()
        assert (calls(lab)["forensics"], refused(lab)) == (4, 1)


def test_threats_that_all_failed_before_are_requested_again_when_a_limited_pool_may_be_tested() -> None:
    """Nothing new comes in: without a retry no call would ever show that the limit has passed."""
    with open_lab(campaigns_of(alone=4)) as lab:
        outage = lasting("status", status=503)
        lab.tap.faults.add(FORENSICS, outage)
        lab.run()
        lab.tap.faults.clear()
        lab.tap.faults.add(FORENSICS, lasting("status", status=429))
        lab.clock.step(hours=1)
        lab.run()
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run_until_done(most=3)
        assert once_each(lab)


def test_a_burst_of_429s_does_not_make_the_extra_calls_for_campaigns_last() -> None:
    with open_lab(campaigns_of(6, 6)) as lab:
        lab.tap.faults.add(asks_with_campaign, lasting("status", status=429))
        lab.run()
        lab.tap.faults.clear()
        for _ in range(2):
            lab.clock.step(hours=1)
            now = lab.clock.now()
            for campaign in lab.world.campaigns * 3:
                threat = lab.world.add_threat(campaign=campaign)
                lab.world.add_event("messagesDelivered", [threat.id], created=now - timedelta(minutes=9))
            lab.tap.forget_calls()
            lab.run()
            assert calls(lab) == {"forensics": 6}
        assert once_each(lab)


def asks_with_campaign(request: Request) -> bool:
    return "includeCampaignForensics" in request.query


@pytest.mark.parametrize(
    "fault",
    [lasting("status", status=503), lasting("status", status=404, body=GONE, headers=JSON)],
    ids=["503", "404"],
)
def test_campaigns_that_all_fail_cost_no_threat_its_report(fault: Fault) -> None:
    with open_lab(campaigns_of(*[1] * 25), CAMPAIGN_FIRST="on", MAX_THREATS="1000") as lab:
        lab.tap.faults.add(asks_for_campaign, fault)
        result = lab.run()
        assert once_each(lab)
        assert set(campaigns_delivered(lab)) == set(lab.world.campaigns)
        assert not result.has_message("seems to be down", logging.WARNING)


def test_a_campaign_whose_call_failed_comes_with_a_member_before_the_last_one_leaves() -> None:
    with open_lab(campaigns_of(3, alone=4), CAMPAIGN_FIRST="on") as lab:
        lab.tap.faults.add(asks_for_campaign, Fault("status", times=3))
        lab.run()
        assert campaigns_delivered(lab) == dict.fromkeys(lab.world.campaigns, 1)
        assert once_each(lab)


def test_the_log_says_why_threats_wait_for_calls() -> None:
    with open_lab(campaigns_of(alone=6), TAP_FORENSICS_DAILY_LIMIT="4") as lab:
        result = lab.run()
        assert result.has_message("no forensics calls are left", logging.WARNING)
        assert "no forensics calls are left" in result.stats.reason


def test_a_skipped_threat_is_named_as_tap_wrote_it() -> None:
    world = campaigns_of(alone=2)
    world.add_event("messagesDelivered", ["ABC-Def"], created=START - timedelta(minutes=20))
    with open_lab(world) as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", status=400), threat_id="ABC-Def")
        assert lab.run().has_message("Skipped threat ABC-Def: ", logging.WARNING)


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("at", range(4, 14))
def test_a_threats_report_in_a_campaigns_answer_closes_no_other_threat_though_the_run_died(
    at: int, landed: bool
) -> None:
    """Nobody has seen such an answer, and nobody has seen that there is none."""
    world = campaigns_of(2, alone=1)
    (campaign,) = world.campaigns
    report = b'{"scope":"%s","id":"%s","name":"x","forensics":[]}'
    reports = (report % (b"THREAT", b"f" * 64), report % (b"CAMPAIGN", campaign.encode()))
    world.overrides[campaign] = b'{"generated":"2026-03-04T09:00:00.000Z","reports":[%s,%s]}' % reports
    with open_lab(world, CAMPAIGN_FIRST="on") as lab:
        run_and_die(lab, at, landed=landed)
        for _ in range(3):
            lab.clock.step(minutes=5)
            lab.run()
        own = Counter(line["_threatId"] for line in lab.lines() if line["id"] in lab.world.threats)
        assert own == Counter(list(lab.world.threats))
        assert campaigns_delivered(lab) == {campaign: 1}
