"""Fan-out and delivery, row by row: what the published function loses, and every status of the API."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.errors import AuthenticationFailed
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.support.lab import FORENSICS, SIEM, START, Lab, lab

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
        assert isinstance(ran.failure, AuthenticationFailed)
        assert "TAP_PRINCIPAL" in str(ran.failure)
        assert 0 < len(the.delivered()) < 10
        assert "lease" not in the.state()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)


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


def test_the_final_line_has_all_figures_of_the_run() -> None:
    with lab() as the:
        ran = the.run()
        last = ran.records[-1]
        stats: dict[str, Any] = last.__dict__["fields"]["run"]
        assert last.getMessage() == "Run complete"
        assert stats["threats_found"] == stats["threats_fetched"] == stats["forensics_calls"] == 10
        assert stats["lines_bytes"] == sum(map(len, the.evidence().values()))
        assert stats["objects"] == len(the.evidence())
        assert stats["siem_calls"] == len(the.tap.calls_to(SIEM)) == stats["windows"]
        assert 60 <= stats["cursor_lag_seconds"] < 70
