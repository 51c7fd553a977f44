"""An hour of refusals on the forensics calls: only TAP's own 404 and 400 may settle a threat."""

from __future__ import annotations

import pytest

from tap_forensics.sandbox.faults import Fault
from tests.support.lab import FORENSICS, START, lab
from tests.support.scenes import GONE, HTML, JSON, PAGE, lasting, once_each, threats_at

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
    with lab(threats_at(HOUR_AGO, 10)) as the:
        the.tap.faults.add(FORENSICS, fault)
        for _ in range(2):
            assert the.run().good.outcome == "incomplete"
            assert set(the.state()["backlog"]) == the.truth()
            assert not the.state().get("collected")
            the.time.advance(minutes=30)
        the.tap.faults.clear()
        the.run_until_done()
        assert once_each(the)


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
    "fault",
    [
        pytest.param(lasting("status", status=404, body=GONE, headers=JSON), id="404"),
        pytest.param(lasting("status", status=400, body=b"The threatId is malformed"), id="400"),
    ],
)
def test_a_404_or_400_counts_once_another_forensics_call_of_the_run_was_answered(fault: Fault) -> None:
    """The one threat's refusal proves nothing while the API says nothing else; then a true answer comes."""
    with lab(threats_at(HOUR_AGO, 1)) as the:
        (one,) = the.world.threats
        the.tap.faults.add(FORENSICS, fault, threat_id=one)
        assert the.run().good.outcome == "incomplete"
        assert set(the.state()["backlog"]) == {one}
        # A SIEM answer is no forensics answer, and that one came.
        other = the.world.add_threat().id
        the.world.add_event("clicksPermitted", [other], created=the.tap.clock())
        the.time.advance(minutes=5)
        assert the.run().good.outcome == "complete"
        assert dict(the.delivered()) == {other: 1}
        assert set(the.state()["collected"]) == {one, other}


def test_a_204_is_a_forensics_answer() -> None:
    with lab(threats_at(HOUR_AGO, 2)) as the:
        one, other = the.world.threats
        the.tap.faults.add(FORENSICS, lasting("status", status=404, body=GONE), threat_id=one)
        the.tap.faults.add(FORENSICS, lasting("status", status=204, body=b""), threat_id=other)
        assert the.run().good.outcome == "complete"
        assert set(the.state()["collected"]) == {one, other}
