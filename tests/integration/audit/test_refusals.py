"""An hour of refusals on the forensics calls: only TAP's own 404 and 400 may settle a threat."""

from __future__ import annotations

import pytest

from tap_forensics.sandbox.faults import Fault
from tests.support.lab import FORENSICS, START, open_lab
from tests.support.scenes import (
    GONE,
    HTML,
    JSON,
    PAGE,
    assert_one_threat_waits_for_an_answer,
    lasting,
    once_each,
    threats_at,
)

HOUR_AGO = START.replace(hour=9, minute=40)
TEXT = {"Content-Type": "text/plain"}

REFUSALS = [
    pytest.param(lasting("status", status=302, headers={"Location": "https://example.com/"}), id="302"),
    pytest.param(lasting("status", status=407, body=PAGE, headers=HTML), id="407"),
    pytest.param(lasting("status", status=410, body=b""), id="410"),
    pytest.param(lasting("status", status=400, body=PAGE, headers=HTML), id="400 HTML"),
    pytest.param(lasting("status", status=400, body=b"Bad Request", headers=TEXT), id="400 plain"),
    pytest.param(lasting("status", status=404, body=GONE, headers=JSON), id="404"),
    pytest.param(lasting("status", status=404, body=PAGE, headers=HTML), id="404 HTML"),
]


@pytest.mark.parametrize("fault", REFUSALS)
def test_refusals_of_every_forensics_call_settle_no_threat(fault: Fault) -> None:
    with open_lab(threats_at(HOUR_AGO, 10)) as lab:
        lab.tap.faults.add(FORENSICS, fault)
        for _ in range(2):
            assert lab.run().stats.outcome == "incomplete"
            assert set(lab.state()["backlog"]) == lab.truth()
            assert not lab.state().get("collected")
            lab.clock.step(minutes=30)
        lab.tap.faults.clear()
        lab.run_until_done()
        assert once_each(lab)


ALONE = [
    pytest.param(lasting("status", status=302, headers={"Location": "https://example.com/"}), id="302"),
    pytest.param(lasting("status", status=407, body=b""), id="407"),
    pytest.param(lasting("status", status=410, body=b""), id="410"),
    pytest.param(lasting("status", status=400, body=PAGE, headers=HTML), id="400 HTML"),
    pytest.param(lasting("status", status=404, body=PAGE, headers=HTML), id="404 HTML"),
    pytest.param(lasting("status", status=404, body=PAGE, headers=JSON), id="404 HTML labelled JSON"),
]


@pytest.mark.parametrize("fault", ALONE)
def test_what_tap_never_answers_settles_no_threat_among_true_answers_either(fault: Fault) -> None:
    with open_lab(threats_at(HOUR_AGO, 10)) as lab:
        assert_one_threat_waits_for_an_answer(lab, fault)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lasting("status", status=404, body=GONE, headers=JSON), id="404"),
        pytest.param(lasting("status", status=400, body=b"The threatId is malformed"), id="400"),
    ],
)
def test_a_404_or_400_counts_once_another_forensics_call_of_the_run_was_answered(fault: Fault) -> None:
    """The one threat's refusal proves nothing while the API says nothing else; then a true answer comes."""
    with open_lab(threats_at(HOUR_AGO, 1)) as lab:
        (one,) = lab.world.threats
        lab.tap.faults.add(FORENSICS, fault, threat_id=one)
        assert lab.run().stats.outcome == "incomplete"
        assert set(lab.state()["backlog"]) == {one}
        # A SIEM answer is no forensics answer, and that one came.
        other = lab.world.add_threat().id
        lab.world.add_event("clicksPermitted", [other], created=lab.tap.clock())
        lab.clock.step(minutes=5)
        assert lab.run().stats.outcome == "complete"
        assert dict(lab.delivered()) == {other: 1}
        assert set(lab.state()["collected"]) == {one, other}


def test_a_204_is_a_forensics_answer() -> None:
    with open_lab(threats_at(HOUR_AGO, 2)) as lab:
        one, other = lab.world.threats
        lab.tap.faults.add(FORENSICS, lasting("status", status=404, body=GONE), threat_id=one)
        lab.tap.faults.add(FORENSICS, lasting("status", status=204, body=b""), threat_id=other)
        assert lab.run().stats.outcome == "complete"
        assert set(lab.state()["collected"]) == {one, other}
