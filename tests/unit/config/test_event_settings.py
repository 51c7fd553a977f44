from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tap_forensics.config.state_location import StateLocation, state_location
from tap_forensics.errors import InvalidSettings
from tests.support.settings import make_settings


@pytest.mark.parametrize(
    ("evidence", "events"),
    [("tap", "tap"), ("tap", "tap/siem"), ("tap/forensics", "/tap/"), ("", "tap-siem"), ("tap", "/")],
)
def test_prefixes_that_contain_one_another_are_refused_by_name(evidence: str, events: str) -> None:
    with pytest.raises(InvalidSettings, match=r"GCS_PREFIX=.* and EVENTS_PREFIX=.* overlap: "):
        make_settings(GCS_PREFIX=evidence, EVENTS_PREFIX=events)


@pytest.mark.parametrize(("evidence", "events"), [("tap", "tap-siem"), ("tap-siem", "tap"), ("a/b", "a/c")])
def test_prefixes_side_by_side_are_fine(evidence: str, events: str) -> None:
    assert make_settings(GCS_PREFIX=evidence, EVENTS_PREFIX=events).events.prefix == events


def test_neither_forensics_nor_events_is_a_fault() -> None:
    with pytest.raises(InvalidSettings, match="FORENSICS=off without EVENTS_PREFIX"):
        make_settings(FORENSICS="off")


def test_statuses_types_and_the_first_moment_are_read() -> None:
    settings = make_settings(
        THREAT_STATUS="active, falsePositive,active", THREAT_TYPE="url", SINCE_TIME="2026-03-04T10:00:00Z"
    )
    assert settings.tap.threat_status == ("active", "falsePositive")
    assert settings.tap.threat_type == ("url",)
    assert settings.windows.since_time == datetime(2026, 3, 4, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THREAT_STATUS", "activ"),
        ("THREAT_TYPE", "url,"),
        ("SINCE_TIME", "yesterday"),
        ("EVENTS_SHAPE", "x"),
        ("FORENSICS", "no"),
        ("EVENTS_PREFIX", "a//b"),
    ],
)
def test_anything_else_is_a_fault_that_says_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"{name}='{value}' is not allowed: give "):
        make_settings(**{"EVENTS_PREFIX": "tap-siem", name: value})


@pytest.mark.parametrize(
    ("evidence", "events", "key", "place"),
    [
        ("tap", "siem", "tap/s.json", StateLocation("state/tap/s.json", "tap/s.json")),
        ("tap", "siem", "siem/s.json", StateLocation("state/siem/s.json", None, "siem/s.json")),
        ("tap", "state", "tap/s.json", StateLocation("working-state/tap/s.json", "tap/s.json")),
        (
            "state",
            "working-state",
            "state/s.json",
            StateLocation("collector-state/state/s.json", "state/s.json"),
        ),
        ("tap", "siem", "elsewhere/s.json", StateLocation("elsewhere/s.json", None)),
    ],
)
def test_the_working_state_lies_outside_both_feeds(
    evidence: str, events: str, key: str, place: StateLocation
) -> None:
    assert state_location(make_settings(GCS_PREFIX=evidence, EVENTS_PREFIX=events, STATE_KEY=key)) == place
