"""A 200 that is not TAP's: a gateway's JSON, an empty object, an HTML page. It answers nothing."""

from __future__ import annotations

import json
import logging

import pytest

from tap_forensics.sandbox.faults import Fault
from tests.support.lab import FORENSICS, SIEM, START, lab
from tests.support.scenes import HTML, PAGE, lasting, once_each, threats_at

HOUR_AGO = START.replace(hour=9, minute=40)

NOT_TAPS = [
    pytest.param(lasting("body", body=b'{"message":"Service temporarily unavailable"}'), id="message"),
    pytest.param(lasting("body", body=b'{"error":{"code":"gateway"}}'), id="error"),
    pytest.param(lasting("body", body=b"{}"), id="empty object"),
    pytest.param(lasting("body", body=b"[]"), id="empty list"),
    pytest.param(lasting("body", body=b"null"), id="null"),
    pytest.param(lasting("body", body=b""), id="no body"),
    pytest.param(lasting("body", body=PAGE, headers=HTML), id="HTML"),
]


@pytest.mark.parametrize("fault", NOT_TAPS)
def test_a_window_that_a_gateway_answered_stays_open_with_a_warning(fault: Fault) -> None:
    with lab(threats_at(HOUR_AGO, 10)) as the:
        the.tap.faults.add(SIEM, fault)
        ran = the.run()
        assert ran.good.outcome == "incomplete"
        assert ran.said(logging.WARNING)
        assert not ran.says("Lost")
        assert the.state()["gaps"]


@pytest.mark.parametrize("fault", NOT_TAPS)
def test_hours_of_a_gateways_siem_answers_lose_nothing(fault: Fault) -> None:
    """Longer than the overlap: what counted as read then would not be read again."""
    with lab(threats_at(HOUR_AGO, 10)) as the:
        the.tap.faults.add(SIEM, fault)
        for _ in range(4):
            assert the.run().good.outcome == "incomplete"
            the.time.advance(hours=1)
        the.tap.faults.clear()
        the.run_until_done()
        assert once_each(the)


@pytest.mark.parametrize("fault", NOT_TAPS)
def test_a_threat_that_a_gateway_answered_stays_open_with_a_warning(fault: Fault) -> None:
    with lab(threats_at(HOUR_AGO, 10)) as the:
        the.tap.faults.add(FORENSICS, fault)
        ran = the.run()
        assert ran.good.outcome == "incomplete"
        assert ran.said(logging.WARNING)
        assert set(the.state()["backlog"]) == the.truth()
        assert not the.state().get("collected")
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run_until_done()
        assert once_each(the)


@pytest.mark.parametrize("fault", NOT_TAPS)
def test_a_gateways_answer_for_one_threat_among_true_ones_is_none_either(fault: Fault) -> None:
    with lab(threats_at(HOUR_AGO, 10)) as the:
        one = next(iter(the.world.threats))
        the.tap.faults.add(FORENSICS, fault, threat_id=one)
        assert the.run().good.outcome == "incomplete"
        assert set(the.state()["backlog"]) == {one}
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run_until_done()
        assert once_each(the)


@pytest.mark.parametrize(
    "answer",
    [
        {"messagesDelivered": []},
        {"clicksPermitted": None},
        {"queryEndTime": "2026-03-04T09:59:00Z"},
    ],
)
def test_an_empty_window_in_the_documented_structure_is_read(answer: dict[str, object]) -> None:
    with lab(threats_at(HOUR_AGO, 0)) as the:
        the.tap.faults.add(SIEM, lasting("body", body=json.dumps(answer).encode()))
        assert the.run().good.outcome == "complete"
        assert "gaps" not in the.state()
