"""A 200 that is not TAP's: a gateway's JSON, an empty object, an HTML page. It answers nothing."""

from __future__ import annotations

import json
import logging

import pytest

from tap_forensics.sandbox.faults import Fault
from tests.support.lab import FORENSICS, SIEM, START, open_lab
from tests.support.scenes import (
    HTML,
    PAGE,
    assert_one_threat_waits_for_an_answer,
    lasting,
    once_each,
    threats_at,
)

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
    with open_lab(threats_at(HOUR_AGO, 10)) as lab:
        lab.tap.faults.add(SIEM, fault)
        result = lab.run()
        assert result.stats.outcome == "incomplete"
        assert result.messages(logging.WARNING)
        assert not result.has_message("Lost")
        assert lab.state()["gaps"]


@pytest.mark.parametrize("fault", NOT_TAPS)
def test_hours_of_a_gateways_siem_answers_lose_nothing(fault: Fault) -> None:
    """Longer than the overlap: what counted as read then would not be read again."""
    with open_lab(threats_at(HOUR_AGO, 10)) as lab:
        lab.tap.faults.add(SIEM, fault)
        for _ in range(4):
            assert lab.run().stats.outcome == "incomplete"
            lab.clock.step(hours=1)
        lab.tap.faults.clear()
        lab.run_until_done()
        assert once_each(lab)


@pytest.mark.parametrize("fault", NOT_TAPS)
def test_a_threat_that_a_gateway_answered_stays_open_with_a_warning(fault: Fault) -> None:
    with open_lab(threats_at(HOUR_AGO, 10)) as lab:
        lab.tap.faults.add(FORENSICS, fault)
        result = lab.run()
        assert result.stats.outcome == "incomplete"
        assert result.messages(logging.WARNING)
        assert set(lab.state()["backlog"]) == lab.truth()
        assert not lab.state().get("collected")
        lab.tap.faults.clear()
        lab.clock.step(hours=1)
        lab.run_until_done()
        assert once_each(lab)


@pytest.mark.parametrize("fault", NOT_TAPS)
def test_a_gateways_answer_for_one_threat_among_true_ones_is_none_either(fault: Fault) -> None:
    with open_lab(threats_at(HOUR_AGO, 10)) as lab:
        assert_one_threat_waits_for_an_answer(lab, fault)


@pytest.mark.parametrize(
    "answer",
    [
        {"messagesDelivered": []},
        {"clicksPermitted": None},
        {"queryEndTime": "2026-03-04T09:59:00Z"},
    ],
)
def test_an_empty_window_in_the_documented_structure_is_read(answer: dict[str, object]) -> None:
    with open_lab(threats_at(HOUR_AGO, 0)) as lab:
        lab.tap.faults.add(SIEM, lasting("body", body=json.dumps(answer).encode()))
        assert lab.run().stats.outcome == "complete"
        assert "gaps" not in lab.state()
