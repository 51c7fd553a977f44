from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tap_forensics.sandbox import validation as rules
from tests.unit.sandbox.conftest import NOW, iso


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


@pytest.mark.parametrize(
    ("start", "end", "sentence"),
    [
        (ago(seconds=29), NOW, "too short. Requests must be for at least 30.00s of data"),
        (ago(hours=1), ago(hours=2), "too short"),
        (ago(hours=1, seconds=1), NOW, "too long"),
        (ago(days=7, seconds=1), ago(days=7, minutes=-30), "too far into the past"),
        (ago(minutes=5), ago(seconds=-1), "The requested interval is still current."),
    ],
)
def test_a_window_that_breaks_a_rule_gets_its_sentence(start: datetime, end: datetime, sentence: str) -> None:
    with pytest.raises(rules.BadRequestError, match=sentence):
        rules.check((start, end), NOW)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (ago(seconds=30), NOW),
        (ago(hours=1), NOW),
        (ago(days=7), ago(days=7, minutes=-60)),
    ],
)
def test_a_window_on_the_edge_of_a_rule_is_allowed(start: datetime, end: datetime) -> None:
    rules.check((start, end), NOW)


@pytest.mark.parametrize(
    "interval",
    [
        f"{iso(ago(minutes=40))}/{iso(ago(minutes=10))}",
        f"PT30M/{iso(ago(minutes=10))}",
        f"{iso(ago(minutes=40))}/PT1800S",
        f"{ago(minutes=40).isoformat()}/{iso(ago(minutes=10))}",
    ],
)
def test_the_forms_of_an_interval_mean_the_same_window(interval: str) -> None:
    assert rules.asked_window({"interval": interval}, NOW) == (ago(minutes=40), ago(minutes=10))


@pytest.mark.parametrize("form", [{"sinceSeconds": "600"}, {"sinceTime": "2025-05-01T11:50:00Z"}])
def test_a_window_since_something_ends_at_the_servers_minute(form: dict[str, str]) -> None:
    end = NOW.replace(second=0)
    assert rules.asked_window(form, NOW) == (end - timedelta(minutes=10), end)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"sinceSeconds": "600", "sinceTime": "2025-05-01T11:50:00Z"},
        {"sinceSeconds": "-600"},
        {"sinceSeconds": "٦٠٠"},
        {"sinceTime": "2025-05-01T11:50:00"},
        {"sinceTime": "2025-02-30T11:50:00Z"},
        {"interval": "2025-05-01T11:00:00Z"},
        {"interval": "2025-05-01T11:00:00 00:00/2025-05-01T11:30:00 00:00"},
        {"interval": "PT/2025-05-01T11:00:00Z"},
        {"interval": "PT30M/PT30M"},
    ],
)
def test_what_is_no_window_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(rules.BadRequestError):
        rules.asked_window(query, NOW)
