"""Evidence within TAP's limits: three types of forensics calls, each with a limit of its own."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.support.lab import FORENSICS, START, Lab, RunResult, open_lab
from tests.support.scenes import once_each

BY_THREAT, ALONE, BY_CAMPAIGN = "forensics", "threat_forensics", "campaign_forensics"
SIZES = (6, 4)
WITHOUT = 5


def campaigns_and_others(sizes: tuple[int, ...] = SIZES, others: int = WITHOUT) -> World:
    world = World.from_threats(sum(sizes) + others, now=START, report_bytes=800, campaign_sizes=sizes)
    world.reports.campaign_report_bytes = 2_000
    return world


def campaign_lines(lab: Lab) -> list[str]:
    """The campaign of each line with a campaign's report."""
    return [line["_campaignId"] for line in lab.lines() if line.get("scope") == "CAMPAIGN"]


def limited(lab: Lab, by_threat: int, by_campaign: int) -> None:
    """TAP's own limits; calls by threat share one, as two write-ups say."""
    lab.tap.quotas[BY_THREAT].limit = by_threat
    lab.tap.quotas[ALONE] = lab.tap.quotas[BY_THREAT]
    lab.tap.quotas[BY_CAMPAIGN].limit = by_campaign


def refused(lab: Lab) -> int:
    return sum(call.status == 429 for call in lab.tap.calls)


def waited(result: RunResult) -> bool:
    return result.has_message("Rate limited (429). Retrying")


def test_with_few_calls_by_threat_every_campaign_is_covered_and_threats_without_one_come_first() -> None:
    with open_lab(campaigns_and_others(), TAP_FORENSICS_DAILY_LIMIT="7") as lab:
        limited(lab, 7, 1800)
        stats = lab.run().stats
        assert sorted(campaign_lines(lab)) == sorted(lab.world.campaigns)
        alone = {name for name, threat in lab.world.threats.items() if not threat.campaign}
        assert alone <= set(lab.delivered())
        # One call is left to a threat of the next run.
        assert sum(lab.delivered().values()) == 6
        assert (stats.threats_covered, stats.threats_uncovered) == (9, 0)
        assert (stats.campaign_reports, stats.threat_reports) == (2, 6)
        assert (stats.campaign_forensics_calls, stats.forensics_calls) == (2, 8)
        assert refused(lab) == 0


def test_covered_threats_get_their_own_report_when_calls_come_back() -> None:
    with open_lab(campaigns_and_others(), TAP_FORENSICS_DAILY_LIMIT="7", DEDUP_HOURS="168") as lab:
        limited(lab, 7, 1800)
        lab.run()
        for _ in range(3):
            lab.clock.step(hours=24, minutes=11)
            lab.run()
        assert once_each(lab)
        assert refused(lab) == 0


def test_a_429_closes_its_own_type_and_the_run_goes_on_with_the_others() -> None:
    with open_lab(campaigns_and_others()) as lab:
        lab.tap.quotas[BY_THREAT].limit = 3
        result = lab.run()
        assert result.stats.outcome == "complete"
        assert once_each(lab)
        assert len(lab.tap.calls_in(BY_CAMPAIGN)) >= 1
        assert sorted(set(campaign_lines(lab))) == sorted(lab.world.campaigns)
        assert result.has_message("No more calls of the type forensics in this run")


def test_a_limit_that_429_taught_is_kept_without_further_429s() -> None:
    with open_lab(campaigns_and_others((), 40), DEDUP_HOURS="168") as lab:
        limited(lab, 10, 0)
        lab.run()
        first = refused(lab)
        assert first > 0
        assert sum(lab.delivered().values()) == 10
        results = []
        for _ in range(3):
            lab.clock.step(hours=25)
            results.append(lab.run())
        assert once_each(lab)
        # Once the limit is known, the calls in flight at most, and without waiting.
        assert refused(lab) - first <= 3 * 8
        assert not any(map(waited, results))


def test_a_limit_that_was_raised_is_noticed() -> None:
    with open_lab(campaigns_and_others((), 40)) as lab:
        limited(lab, 10, 0)
        lab.run()
        limited(lab, 1000, 0)
        lab.clock.step(hours=1)
        lab.run()
        assert once_each(lab)


def test_a_campaign_is_requested_once_in_dedup_hours_and_then_only_for_a_new_threat() -> None:
    with open_lab(campaigns_and_others(), TAP_FORENSICS_DAILY_LIMIT="1", CAMPAIGN_FIRST="on") as lab:
        grown, other = lab.world.campaigns
        for hour in range(30):
            lab.run()
            lab.clock.step(hours=1)
            if hour == 20:
                threat = lab.world.add_threat(campaign=grown)
                lab.world.add_event("messagesDelivered", [threat.id], created=lab.clock.now())
        requested = lab.tap.calls_in(BY_CAMPAIGN)
        assert sorted(call.asked_id or "" for call in requested) == sorted([grown, other, grown])
        assert requested[2].time - requested[0].time >= timedelta(hours=23, minutes=59)


def test_a_new_campaign_comes_before_the_repeated_report_of_another() -> None:
    with open_lab(
        campaigns_and_others((3,), 0),
        TAP_FORENSICS_DAILY_LIMIT="1",
        TAP_CAMPAIGN_FORENSICS_DAILY_LIMIT="1",
        CAMPAIGN_FIRST="on",
    ) as lab:
        lab.run()
        lab.clock.step(hours=25)
        old, new = lab.world.campaigns[0], lab.world.add_campaign()
        for campaign, kind in ((old, "clicksPermitted"), (new, "messagesBlocked")):
            threat = lab.world.add_threat(campaign=campaign)
            lab.world.add_event(kind, [threat.id], created=lab.clock.now() - timedelta(minutes=2))
        lab.run()
        assert [call.asked_id for call in lab.tap.calls_in(BY_CAMPAIGN)] == [old, new]


def test_off_makes_one_call_a_threat_and_waits() -> None:
    with open_lab(campaigns_and_others(), TAP_FORENSICS_DAILY_LIMIT="7", CAMPAIGN_FIRST="off") as lab:
        lab.run()
        assert len(lab.tap.calls_in(BY_THREAT)) == len(lab.tap.calls_to(FORENSICS)) == 7


def test_a_covered_threat_leaves_after_seven_days_at_info_and_an_uncovered_one_at_error() -> None:
    with open_lab(campaigns_and_others((3,), 2), TAP_FORENSICS_DAILY_LIMIT="1") as lab:
        for name in lab.world.threats:
            lab.tap.faults.add(FORENSICS, Fault("status", status=503, times=None), threat_id=name)
        results = []
        for _ in range(10):
            results.append(lab.run())
            lab.clock.step(hours=24)
        lab.tap.faults.clear()
        covered = {name for name, threat in lab.world.threats.items() if threat.campaign}
        errors = [line for result in results for line in result.messages(logging.ERROR)]
        infos = [line for result in results for line in result.messages()]
        for name in lab.world.threats:
            assert any(name in line for line in errors) == (name not in covered)
            assert any(name in line and "Removed threat" in line for line in infos) == (name in covered)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503, times=None),
        Fault("status", status=404, times=None),
        Fault("status", status=302, times=None),
        Fault("body", body=b"<html>no</html>", times=None),
        Fault("body", body=b'{"message":"no"}', times=None),
        Fault("body", body=b'{"reports":[]}', times=None),
    ],
)
def test_a_campaign_without_an_answer_covers_nothing_and_its_threats_stay_open(fault: Fault) -> None:
    with open_lab(campaigns_and_others(), CAMPAIGN_FIRST="on", TAP_FORENSICS_DAILY_LIMIT="3") as lab:
        bad, good = lab.world.campaigns
        lab.tap.faults.add(FORENSICS, fault, args={"campaignId": bad})
        lab.run()
        assert campaign_lines(lab) == [good]
        assert set(lab.state()["failed_campaigns"]) == {bad}
        lab.tap.faults.clear()
        lab.run(TAP_FORENSICS_DAILY_LIMIT="1800")
        assert sorted(campaign_lines(lab)) == sorted(lab.world.campaigns)
        assert "failed_campaigns" not in lab.state()
        assert once_each(lab)


def test_a_campaign_that_always_fails_uses_few_calls() -> None:
    with open_lab(campaigns_and_others((3,), 0), CAMPAIGN_FIRST="on", TAP_FORENSICS_DAILY_LIMIT="1") as lab:
        for name in (*lab.world.threats, *lab.world.campaigns):
            for key in ("threatId", "campaignId"):
                lab.tap.faults.add(FORENSICS, Fault("status", status=503, times=None), args={key: name})
        for _ in range(3 * 24):
            lab.run()
            lab.clock.step(hours=1)
        assert len(lab.tap.calls_in(BY_CAMPAIGN)) <= 15
        lab.tap.faults.clear()


def test_more_threats_than_the_run_may_fetch_are_covered_at_once() -> None:
    with open_lab(campaigns_and_others((30,), 0), MAX_THREATS="5", CAMPAIGN_FIRST="on") as lab:
        stats = lab.run().stats
        assert (stats.threats_fetched, stats.threats_covered) == (5, 25)
        lab.run_until_done()
        assert once_each(lab)


def test_the_shared_limit_holds_for_both_types_by_threat_over_a_day() -> None:
    with open_lab(campaigns_and_others(others=30), TAP_FORENSICS_DAILY_LIMIT="20") as lab:
        for _ in range(30):
            lab.run()
            lab.clock.step(hours=1)
        calls = [call.time for call in lab.tap.calls_to(FORENSICS) if "threatId" in call.query]
        for moment in calls:
            assert sum(moment <= other < moment + timedelta(hours=24) for other in calls) <= 20
