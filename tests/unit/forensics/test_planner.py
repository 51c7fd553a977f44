"""Which calls come next, by what is left of each type."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tap_forensics.forensics.planner import Waiting, due_campaigns, next_step
from tap_forensics.storage.state import VERSION, Lease, OpenItem, State, Threat
from tap_forensics.tap.quota import CAMPAIGN_FORENSICS, FORENSICS, THREAT_FORENSICS
from tests.support.clocks import NOW

HOUR = timedelta(hours=1)
CLICKED, DELIVERED, BLOCKED = 0, 1, 2


def threat(
    priority: int = DELIVERED, campaign: str | None = None, *, ago: int = 0, attempts: int = 0
) -> Threat:
    seen = NOW - ago * HOUR
    return Threat(priority=priority, first_seen=seen, last_seen=seen, campaign=campaign, attempts=attempts)


def left(by_threat: int | None, by_campaign: int | None, alone: int | None = None) -> dict[str, int | None]:
    return {FORENSICS: by_threat, THREAT_FORENSICS: alone, CAMPAIGN_FORENSICS: by_campaign}


def campaigns(threats: dict[str, Threat]) -> dict[str, OpenItem]:
    return {threat.campaign: OpenItem() for threat in threats.values() if threat.campaign}


def calls(waiting: Waiting, mode: str = "auto") -> tuple[str, list[str]] | None:
    """The type of the next calls, and what they name."""
    step = next_step(waiting, mode)
    return (step.pool, [request.name for request in step.requests]) if step else None


MIXED = {
    "member": threat(campaign="c"),
    "clicked": threat(CLICKED, campaign="c"),
    "alone": threat(BLOCKED),
}


def test_without_limits_each_threat_gets_one_call_with_its_campaign() -> None:
    waiting = Waiting(MIXED, campaigns(MIXED), {"c"}, left(None, None))
    assert calls(waiting) == (FORENSICS, ["clicked", "member", "alone"])


@pytest.mark.parametrize("by_threat", [3, 100])
def test_while_enough_calls_are_left_nothing_changes(by_threat: int) -> None:
    waiting = Waiting(MIXED, campaigns(MIXED), {"c"}, left(by_threat, 1800, 0))
    assert calls(waiting) == (FORENSICS, ["clicked", "member", "alone"])


def test_if_more_threats_wait_than_calls_are_left_campaigns_come_first() -> None:
    waiting = Waiting(dict(MIXED), campaigns(MIXED), {"c"}, left(2, 1800, 0))
    assert calls(waiting) == (CAMPAIGN_FORENSICS, ["c"])
    waiting.campaigns.clear()
    waiting.uncovered.clear()
    assert calls(waiting) == (FORENSICS, ["alone"])
    del waiting.threats["alone"]
    assert calls(waiting, "on") == (FORENSICS, ["clicked", "member"])


def test_a_campaign_whose_own_call_failed_comes_with_a_member() -> None:
    waiting = Waiting(dict(MIXED), {}, {"c"}, left(9, 9, 9))
    assert calls(waiting, "on") == (THREAT_FORENSICS, ["alone"])
    del waiting.threats["alone"]
    assert calls(waiting, "on") == (FORENSICS, ["clicked", "member"])


def test_a_campaigns_call_names_its_most_urgent_member() -> None:
    step = next_step(Waiting(MIXED, campaigns(MIXED), {"c"}, left(0, 1, 0)), "auto")
    assert step
    assert [(request.threat_id, request.campaign) for request in step.requests] == [("clicked", "c")]


def test_a_campaign_without_a_report_comes_before_a_repeated_report() -> None:
    threats = {"covered": threat(CLICKED, "old"), "uncovered": threat(BLOCKED, "new")}
    waiting = Waiting(threats, campaigns(threats), {"new"}, left(0, 1, 0))
    assert calls(waiting) == (CAMPAIGN_FORENSICS, ["new"])


def test_members_of_covered_campaigns_wait_for_those_of_others() -> None:
    threats = {
        "covered": threat(CLICKED, "c"),
        "uncovered": threat(BLOCKED, "d"),
        "old": threat(DELIVERED, "d", ago=2),
        "new": threat(DELIVERED, "d"),
    }
    waiting = Waiting(threats, {"d": OpenItem()}, {"d"}, left(2, 0, 0))
    # A campaign without a call of its own comes with its members' calls, the most recently seen first.
    assert calls(waiting) == (FORENSICS, ["new", "old"])


@pytest.mark.parametrize(("calls_left", "expected"), [(9, 1), (8, 0), (0, 0), (None, 3)])
def test_covered_threats_leave_the_reserve_to_later_ones(calls_left: int | None, expected: int) -> None:
    threats = {name: threat(campaign="c") for name in "abc"}
    reserve = {FORENSICS: 8, THREAT_FORENSICS: 8}
    waiting = Waiting(threats, {}, set(), left(0, 0, calls_left), reserve)
    step = next_step(waiting, "on")
    assert (len(step.requests) if step else 0) == expected
    waiting.threats["d"] = threat()
    assert calls(waiting, "on") == (None if calls_left == 0 else (THREAT_FORENSICS, ["d"]))


def test_the_other_type_is_used_if_the_fitting_one_has_no_calls_left() -> None:
    threats = {name: threat() for name in "abc"}
    assert calls(Waiting(threats, {}, set(), left(0, 0, 2))) == (THREAT_FORENSICS, ["a", "b"])
    assert calls(Waiting(threats, {}, set(), left(2, 0, 0))) == (FORENSICS, ["a", "b"])
    assert calls(Waiting(threats, {}, set(), left(0, 0, 0))) is None


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("on", (CAMPAIGN_FORENSICS, ["c"])), ("off", (FORENSICS, ["clicked", "member", "alone"]))],
)
def test_the_setting_decides_whatever_is_left(mode: str, expected: tuple[str, list[str]]) -> None:
    assert calls(Waiting(MIXED, campaigns(MIXED), {"c"}, left(None, None)), mode) == expected


def test_off_makes_no_call_of_another_type() -> None:
    assert calls(Waiting(MIXED, campaigns(MIXED), {"c"}, left(0, None)), "off") is None


def test_failed_ones_come_last_but_before_the_calls_are_used_up() -> None:
    threats = {"failed": threat(CLICKED, attempts=1), **{name: threat() for name in "abc"}}
    assert calls(Waiting(threats, {}, set(), left(0, 0, 3))) == (THREAT_FORENSICS, ["a", "b", "failed"])
    assert calls(Waiting(threats, {}, set(), left(9, 0, 0))) == (FORENSICS, ["a", "b", "c", "failed"])


def test_a_campaign_is_due_once_in_dedup_hours_and_a_failed_one_after_its_wait() -> None:
    threats = {name: threat(campaign=name) for name in ("new", "old", "fresh", "failing", "failed")}
    failing = OpenItem(attempts=5, last_attempt_at=NOW - HOUR)
    failed = OpenItem(attempts=1, last_attempt_at=NOW - HOUR)
    state = State(
        VERSION,
        lease=Lease("20260304_095900", "owner", NOW),
        campaigns={"old": int((NOW - 25 * HOUR).timestamp()), "fresh": int((NOW - HOUR).timestamp())},
        failed_campaigns={"failing": failing, "failed": failed},
    )
    due = due_campaigns(state, threats, NOW, 24)
    assert due.keys() == {"new", "old", "failed"}
    assert due["failed"] is failed


def test_a_delivered_campaign_is_due_again_only_for_a_threat_that_is_new_since() -> None:
    delivered = int((NOW - 30 * HOUR).timestamp())
    state = State(VERSION, campaigns={"c": delivered, "d": delivered})
    threats = {
        "c before": threat(campaign="c", ago=31),
        "c with it": threat(campaign="c", ago=30),
        "d before": threat(campaign="d", ago=31),
        "d since": threat(campaign="d", ago=29),
    }
    assert due_campaigns(state, threats, NOW, 24).keys() == {"d"}
