"""Fan-out and delivery, row by row: what the published function loses, and every status of the API."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.errors import AuthenticationFailed
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.support.lab import FORENSICS, SIEM, START, Lab, open_lab

ONE = "1" * 64
OTHER = "2" * 64


def once_each(lab: Lab) -> bool:
    return dict(lab.delivered()) == dict.fromkeys(lab.truth(), 1)


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
    with open_lab(world_of(ONE)) as lab:
        lab.tap.faults.add(FORENSICS, fault, threat_id=ONE)
        first = lab.run().stats
        assert first.threats_left == 1
        assert first.outcome == "incomplete"
        assert lab.state()["backlog"][ONE]["attempts"] == 1
        assert lab.evidence() == {}
        lab.clock.step(hours=1)
        lab.run()
        assert once_each(lab)


def test_one_bad_answer_is_asked_for_again_in_the_same_run() -> None:
    with open_lab(world_of(ONE)) as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", times=2))
        assert lab.run().stats.outcome == "complete"
        assert once_each(lab)


def test_a_threat_that_failed_for_seven_days_is_given_up_by_name_at_error() -> None:
    with open_lab(world_of(ONE)) as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", times=None))
        result = lab.run()
        # The second run still sees it in its overlap; seven days count from there.
        for _ in range(9):
            assert not result.has_message("Gave up", logging.ERROR)
            lab.clock.step(hours=23)
            result = lab.run()
        assert result.has_message(f"Gave up threat {ONE}: last seen 7 days ago", logging.ERROR)
        assert "backlog" not in lab.state()


def test_threats_that_fail_let_the_others_go_first() -> None:
    with open_lab(world_of(ONE), MAX_THREATS="1") as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", times=None), threat_id=ONE)
        lab.run()
        lab.world.add_event("messagesBlocked", [OTHER], created=START - timedelta(minutes=5))
        lab.run()
        assert lab.delivered()[OTHER] == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("status", status=204, body=b""), id="204"),
        pytest.param(Fault("body", body=b'{"generated":"2026-03-04T10:00:00Z","reports":[]}'), id="empty"),
        pytest.param(Fault("body", body=b'{"reports":null}'), id="null"),
    ],
)
def test_what_has_no_evidence_is_skipped_counted_and_remembered(fault: Fault) -> None:
    with open_lab(world_of(ONE)) as lab:
        lab.tap.faults.add(FORENSICS, fault)
        result = lab.run()
        assert result.stats.threats_skipped == 1
        assert result.has_message("No forensic evidence retrieved.")
        assert result.stats.outcome == "complete"
        lab.clock.step(minutes=30)
        lab.run()
        assert len(lab.tap.calls_to(FORENSICS)) == 1
        assert lab.evidence() == {}


STRANGE = b"bad\nid \x1b[31m\xe2\x80\xae demo-secret " + b"x" * 2000


@pytest.mark.parametrize("status", [400, 402, 405, 410, 418, 301, 302, 307])
def test_an_unexpected_answer_leaves_the_threat_open_and_is_told_harmlessly(status: int) -> None:
    with open_lab(world_of(ONE)) as lab:
        headers = {"Location": f"{lab.tap.url}/v2/siem/all"}
        lab.tap.faults.add(FORENSICS, Fault("status", status=status, body=STRANGE, headers=headers))
        result = lab.run()
        messages = [line for line in result.messages(logging.WARNING) if ONE in line]
        words = f"TAP answered {status}: text (about 2 KiB), not shown"
        assert messages == [f"Threat {ONE} stays on the backlog: {words}"]
        # It may follow no redirect and asks no second time in this run.
        assert len(lab.tap.calls_to(FORENSICS)) == 1
        assert lab.state()["backlog"][ONE]["attempts"] == 1
        lab.clock.step(minutes=30)
        lab.run()
        assert once_each(lab)


def test_a_400_beside_a_true_answer_is_skipped_remembered_and_told_harmlessly() -> None:
    with open_lab(world_of(ONE, OTHER)) as lab:
        lab.tap.faults.add(FORENSICS, Fault("status", status=400, body=STRANGE), threat_id=ONE)
        result = lab.run()
        messages = [line for line in result.messages(logging.WARNING) if ONE in line]
        assert messages == [f"Skipped threat {ONE}: TAP answered 400: text (about 2 KiB), not shown"]
        assert result.stats.threats_skipped == 1
        lab.clock.step(minutes=30)
        lab.run()
        assert len(lab.tap.calls_to(FORENSICS)) == 2
        assert dict(lab.delivered()) == {OTHER: 1}


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_fail_the_run_and_keep_what_was_fetched(status: int) -> None:
    with open_lab(FETCH_CONCURRENCY="1") as lab:
        fifth = sorted(lab.world.threats, key=lambda name: lab.world.threats[name].number)[4]
        lab.tap.faults.add(FORENSICS, Fault("status", status=status), threat_id=fifth)
        result = lab.run()
        assert isinstance(result.failure, AuthenticationFailed)
        assert "TAP_PRINCIPAL" in str(result.failure)
        assert 0 < len(lab.delivered()) < 10
        assert "lease" not in lab.state()
        lab.clock.step(hours=1)
        lab.run()
        assert once_each(lab)


@pytest.mark.parametrize(
    "name", ["a&b=c", "a/b", "a\nb", "<b>", "a b+c%20", "ü\u202e", "..", "?x#y", "a" * 256]
)
def test_an_odd_id_is_asked_for_as_it_is_and_never_becomes_part_of_the_address(name: str) -> None:
    with open_lab(world_of(name)) as lab:
        result = lab.run()
        (call,) = lab.tap.calls_to(FORENSICS)
        assert call.query == {"threatId": name, "includeCampaignForensics": "true"}
        assert result.stats.outcome == "complete"
        assert not any("\n" in line for line in result.messages())


def test_the_final_line_has_all_figures_of_the_run() -> None:
    with open_lab() as lab:
        result = lab.run()
        last = result.log.records[-1]
        stats: dict[str, Any] = last.__dict__["fields"]["run"]
        assert last.getMessage() == "Run complete"
        assert stats["threats_found"] == stats["threats_fetched"] == stats["forensics_calls"] == 10
        assert stats["lines_bytes"] == sum(map(len, lab.evidence().values()))
        assert stats["objects"] == len(lab.evidence())
        assert stats["siem_calls"] == len(lab.tap.calls_to(SIEM)) == stats["windows"]
        assert 60 <= stats["cursor_lag_seconds"] < 70
