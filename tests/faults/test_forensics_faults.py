"""Fan-out and delivery, row by row: what the published function loses, and every status of the API."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.errors import CredentialsRefused
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.faults.lab import FORENSICS, SIEM, START, Lab, lab

ONE = "1" * 64
OTHER = "2" * 64


def once_each(the: Lab) -> bool:
    return dict(the.delivered()) == dict.fromkeys(the.truth(), 1)


def world_of(*threat_ids: str, kind: str = "messagesDelivered") -> World:
    world = World.from_threats(0, now=START)
    for threat_id in threat_ids:
        world.add_event(kind, [threat_id], created=START - timedelta(minutes=20))
    return world


PASSING = [
    pytest.param(Fault("status", status=500, times=3), id="500"),
    pytest.param(Fault("status", status=503, times=3, headers={"Retry-After": "7"}), id="503 Retry-After"),
    pytest.param(Fault("reset", times=3), id="reset"),
    pytest.param(Fault("reset", times=3, after_bytes=300), id="reset in mid-body"),
    pytest.param(Fault("cut", times=3, after_bytes=100), id="cut"),
    pytest.param(Fault("body", times=3, body=b'{"generated":'), id="unparsable"),
    pytest.param(Fault("body", times=3, body=b'{"reports":{}}'), id="reports of a wrong type"),
    pytest.param(Fault("body", times=3, body=b"[" * 10_000), id="nested 10,000 deep"),
]


@pytest.mark.parametrize("fault", PASSING)
def test_a_threat_without_a_usable_answer_stays_on_the_backlog_with_its_count(fault: Fault) -> None:
    with lab(world_of(ONE)) as the:
        the.tap.faults.add(FORENSICS, fault, threat_id=ONE)
        first = the.run().good
        assert first.threats_left == 1
        assert first.outcome == "incomplete"
        assert the.state()["backlog"][ONE]["attempts"] == 1
        assert the.evidence() == {}
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)


def test_one_bad_answer_is_asked_for_again_in_the_same_run() -> None:
    with lab(world_of(ONE)) as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=2))
        assert the.run().good.outcome == "complete"
        assert once_each(the)


def test_a_threat_that_failed_for_seven_days_is_given_up_by_name_at_error() -> None:
    with lab(world_of(ONE)) as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=None))
        ran = the.run()
        # The second run still sees it in its overlap; seven days count from there.
        for _ in range(9):
            assert not ran.says("Gave up", logging.ERROR)
            the.time.advance(hours=23)
            ran = the.run()
        assert ran.says(f"Gave up threat {ONE}: last seen 7 days ago", logging.ERROR)
        assert "backlog" not in the.state()


def test_threats_that_fail_let_the_others_go_first() -> None:
    with lab(world_of(ONE), MAX_THREATS="1") as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=None), threat_id=ONE)
        the.run()
        the.world.add_event("messagesBlocked", [OTHER], created=START - timedelta(minutes=5))
        the.run()
        assert the.delivered()[OTHER] == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("status", status=204, body=b""), id="204"),
        pytest.param(Fault("body", body=b'{"generated":"2026-03-04T10:00:00Z","reports":[]}'), id="empty"),
        pytest.param(Fault("body", body=b'{"reports":null}'), id="null"),
    ],
)
def test_what_has_no_evidence_is_skipped_counted_and_remembered(fault: Fault) -> None:
    with lab(world_of(ONE)) as the:
        the.tap.faults.add(FORENSICS, fault)
        ran = the.run()
        assert ran.good.threats_skipped == 1
        assert ran.says("No forensic evidence retrieved.")
        assert ran.good.outcome == "complete"
        the.time.advance(minutes=30)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == 1
        assert the.evidence() == {}


STRANGE = b"bad\nid \x1b[31m\xe2\x80\xae demo-secret " + b"x" * 2000


@pytest.mark.parametrize("status", [400, 402, 405, 410, 418, 301, 302, 307])
def test_an_unexpected_answer_leaves_the_threat_open_and_is_told_harmlessly(status: int) -> None:
    with lab(world_of(ONE)) as the:
        headers = {"Location": f"{the.tap.url}/v2/siem/all"}
        the.tap.faults.add(FORENSICS, Fault("status", status=status, body=STRANGE, headers=headers))
        ran = the.run()
        told = [line for line in ran.said(logging.WARNING) if ONE in line]
        words = f"TAP answered {status}: text (about 2 KiB), not shown"
        assert told == [f"Threat {ONE} stays on the backlog: {words}"]
        # It may follow no redirect and asks no second time in this run.
        assert len(the.tap.calls_to(FORENSICS)) == 1
        assert the.state()["backlog"][ONE]["attempts"] == 1
        the.time.advance(minutes=30)
        the.run()
        assert once_each(the)


def test_a_400_beside_a_true_answer_is_skipped_remembered_and_told_harmlessly() -> None:
    with lab(world_of(ONE, OTHER)) as the:
        the.tap.faults.add(FORENSICS, Fault("status", status=400, body=STRANGE), threat_id=ONE)
        ran = the.run()
        told = [line for line in ran.said(logging.WARNING) if ONE in line]
        assert told == [f"Skipped threat {ONE}: TAP answered 400: text (about 2 KiB), not shown"]
        assert ran.good.threats_skipped == 1
        the.time.advance(minutes=30)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == 2
        assert dict(the.delivered()) == {OTHER: 1}


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_fail_the_run_and_keep_what_was_fetched(status: int) -> None:
    with lab(FETCH_CONCURRENCY="1") as the:
        fifth = sorted(the.world.threats, key=lambda name: the.world.threats[name].number)[4]
        the.tap.faults.add(FORENSICS, Fault("status", status=status), threat_id=fifth)
        ran = the.run()
        assert isinstance(ran.failure, CredentialsRefused)
        assert "TAP_PRINCIPAL" in str(ran.failure)
        assert 0 < len(the.delivered()) < 10
        assert "lease" not in the.state()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)


def test_a_429_is_waited_for_by_all_and_nothing_is_skipped() -> None:
    with lab() as the:
        fault = Fault("status", status=429, headers={"Retry-After": "200"})
        the.tap.faults.add(FORENSICS, fault)
        before = the.time.now()
        ran = the.run()
        assert ran.said().count("Rate limited (429). Retrying after 200s...") == 1
        assert the.time.now() - before >= timedelta(seconds=200)
        assert ran.good.outcome == "complete"
        assert once_each(the)


def test_a_retry_after_as_a_date_is_obeyed() -> None:
    with lab(world_of(ONE)) as the:
        at = (the.time.now() + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        the.tap.faults.add(FORENSICS, Fault("status", status=429, headers={"Retry-After": at}))
        before = the.time.now()
        the.run()
        assert the.time.now() - before >= timedelta(seconds=95)
        assert once_each(the)


def test_nothing_but_429_ends_the_fan_out_cleanly_and_one_call_asks_again_an_hour_later() -> None:
    with lab() as the:
        the.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        first = the.run()
        assert first.good.outcome == "incomplete"
        assert first.good.threats_left == 10
        assert first.said().count("Rate limited (429). Retrying after 1s...") == 1
        assert first.said().count("Rate limited (429). Retrying after 16s...") == 1
        calls = len(the.tap.calls_to(FORENSICS))
        the.time.advance(minutes=15)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == calls
        the.time.advance(minutes=45)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == calls + 1
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)
        assert "limited_at" not in the.state()["calls"]["forensics"]


def test_an_explicit_limit_overrides_what_429_taught() -> None:
    with lab() as the:
        the.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        the.run()
        the.tap.faults.clear()
        the.time.advance(minutes=5)
        the.run(TAP_FORENSICS_DAILY_LIMIT="1800")
        assert once_each(the)


def test_the_configured_limit_is_kept_over_a_rolling_day_and_nothing_is_lost() -> None:
    with lab(TAP_FORENSICS_DAILY_LIMIT="4") as the:
        the.tap.quotas["forensics_threat"].limit = 4
        for _ in range(3):
            the.run()
            the.time.advance(hours=12)
            the.run()
            the.time.advance(hours=12, minutes=11)
        assert once_each(the)
        assert {call.status for call in the.tap.calls_to(FORENSICS)} == {200}


def test_over_the_threat_limit_the_rest_is_carried_over_by_priority_and_age() -> None:
    world = world_of()
    for kind, digit in (("clicksBlocked", "3"), ("messagesDelivered", "2"), ("clicksPermitted", "1")):
        for age in (150, 50):
            name = f"{digit}{age:03}" + "0" * 60
            world.add_event(kind, [name], created=START - timedelta(minutes=age))
    with lab(world, LOOKBACK_HOURS="3", MAX_THREATS="2", FETCH_CONCURRENCY="1") as the:
        ran = the.run()
        assert ran.says("Reached max threats limit (2)")
        the.run_until_done()
        order = [call.query["threatId"][:4] for call in the.tap.calls_to(FORENSICS)]
        assert order == ["1150", "1050", "2150", "2050", "3150", "3050"]
        assert once_each(the)


def see_again(the: Lab) -> None:
    for threat_id in the.world.threats:
        the.world.add_event("clicksBlocked", [threat_id], created=the.time.now() - timedelta(minutes=10))


def test_the_same_threat_in_the_next_hour_is_not_fetched_again_within_dedup_hours() -> None:
    with lab() as the:
        the.run()
        for _ in range(3):
            the.time.advance(hours=7)
            see_again(the)
            the.run()
        assert once_each(the)
        the.time.advance(hours=7)
        see_again(the)
        the.run()
        assert set(the.delivered().values()) == {2}


def test_with_dedup_off_a_threat_still_counts_once_within_a_run() -> None:
    with lab(DEDUP_HOURS="0") as the:
        the.run()
        assert once_each(the)
        the.time.advance(minutes=20)
        the.run()
        assert set(the.delivered().values()) == {2}


@pytest.mark.parametrize(
    "name", ["a&b=c", "a/b", "a\nb", "<b>", "a b+c%20", "ü\u202e", "..", "?x#y", "a" * 256]
)
def test_an_odd_id_is_asked_for_as_it_is_and_never_becomes_part_of_the_address(name: str) -> None:
    with lab(world_of(name)) as the:
        ran = the.run()
        (call,) = the.tap.calls_to(FORENSICS)
        assert call.query == {"threatId": name, "includeCampaignForensics": "true"}
        assert ran.good.outcome == "complete"
        assert not any("\n" in line for line in ran.said())


def test_at_most_fetch_concurrency_calls_are_in_flight_and_each_threat_costs_one() -> None:
    with lab(World.from_threats(40, now=START, report_bytes=500)) as the:
        the.tap.latency_seconds = 0.05
        the.run()
        calls = the.tap.calls_to(FORENSICS)
        assert len(calls) == 40
        assert max(call.in_flight for call in calls) == 8


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("delay", times=None, delay_seconds=0.6), id="slow"),
        pytest.param(Fault("hang", times=None), id="hang"),
        pytest.param(Fault("drip", times=None, delay_seconds=0.2, chunk_bytes=1), id="drip"),
        pytest.param(Fault("drip_headers", times=None, delay_seconds=0.2), id="drip of the head"),
    ],
)
def test_a_run_that_cannot_finish_stops_by_itself_and_the_next_goes_on(fault: Fault) -> None:
    with lab(World.from_threats(60, now=START, report_bytes=500), RUN_BUDGET_SECONDS="5") as the:
        the.tap.faults.add(FORENSICS, fault)
        began = time.monotonic()
        ran = the.run()
        assert time.monotonic() - began < 5
        assert ran.good.outcome == "incomplete"
        assert ran.good.threats_left > 0
        the.tap.faults.clear()
        the.run(RUN_BUDGET_SECONDS="480")
        assert once_each(the)


def test_an_endpoint_that_hangs_in_discovery_ends_the_run_in_time_too() -> None:
    with lab(RUN_BUDGET_SECONDS="5") as the:
        the.tap.faults.add(SIEM, Fault("hang", times=None))
        began = time.monotonic()
        ran = the.run()
        assert time.monotonic() - began < 5
        assert ran.good.outcome == "incomplete"
        the.tap.faults.clear()
        the.run()
        assert once_each(the)


def test_twenty_failures_in_a_row_end_the_fan_out_and_spare_the_calls() -> None:
    with lab(World.from_threats(100, now=START, report_bytes=500)) as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=None))
        ran = the.run()
        assert ran.says("20 threats in a row", logging.WARNING)
        assert len(the.tap.calls_to(FORENSICS)) <= 3 * (20 + 8)
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)


def test_the_final_line_has_all_figures_of_the_run() -> None:
    with lab() as the:
        ran = the.run()
        last = ran.records[-1]
        figures: dict[str, Any] = last.__dict__["fields"]["run"]
        assert last.getMessage() == "Run complete"
        assert figures["threats_found"] == figures["threats_fetched"] == figures["forensics_calls"] == 10
        assert figures["lines_bytes"] == sum(map(len, the.evidence().values()))
        assert figures["objects"] == len(the.evidence())
        assert figures["siem_calls"] == len(the.tap.calls_to(SIEM)) == figures["windows"]
        assert 60 <= figures["cursor_lag_seconds"] < 70
