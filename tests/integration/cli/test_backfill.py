from __future__ import annotations

import signal
from datetime import datetime, timedelta
from typing import Any

import pytest

from tap_forensics.clock import iso
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site, live_lease
from tests.support.settings import STATE

HOUR = timedelta(hours=1)


@pytest.fixture
def now() -> datetime:
    return utc_now().replace(microsecond=0)


@pytest.fixture
def running(site: Site, now: datetime) -> Site:
    """A collector whose schedule began just now: what came before was never read."""
    site.put_state(last_event_time=now - HOUR)
    return site


def span(start: datetime, end: datetime) -> list[str]:
    return ["--from", iso(start), "--to", iso(end)]


def test_a_past_day_comes_once_and_the_cursor_is_where_an_ordinary_run_puts_it(
    running: Site, now: datetime
) -> None:
    fields = running.call_json("backfill", *span(now - 24 * HOUR, now - HOUR))
    assert fields["done"]
    assert fields["siem_calls_needed"] == 23
    # And what an ordinary run reads from the cursor on; the overlap before it is in the interval.
    assert len(running.tap.calls_to("/v2/siem/all")) == 23 + 1
    assert dict(running.delivered()) == running.truth(now - 24 * HOUR, utc_now())
    state = running.state()
    assert not {"gaps", "backlog", "lease"} & set(state)
    assert now - datetime.fromisoformat(state["last_event_time"]) <= timedelta(seconds=60)


def test_events_come_too_and_none_of_them_twice(running: Site, now: datetime) -> None:
    fields = running.call_json("backfill", *span(now - 24 * HOUR, now - HOUR), EVENTS_PREFIX="tap-siem")
    again = running.call_json("backfill", *span(now - 24 * HOUR, now - HOUR), EVENTS_PREFIX="tap-siem")
    assert fields["runs"][0]["event_lines"] > 0
    assert again["runs"][0]["event_lines"] == 0
    assert again["runs"][0]["threats_new"] == 0


def test_a_dry_run_says_what_it_needs_and_changes_nothing(running: Site, now: datetime) -> None:
    before = running.bucket.objects()
    result = running.call("backfill", "--dry-run", *span(now - 24 * HOUR, now - HOUR))
    assert result.exit_code == 0
    assert "23 needed" in result.stdout
    assert "1,800 left" in result.stdout
    assert running.bucket.objects() == before
    assert not running.tap.calls


def test_killed_midway_it_is_resumed_and_each_threat_comes_exactly_once(running: Site, now: datetime) -> None:
    running.tap.latency_seconds = 0.05
    slow = {"FETCH_CONCURRENCY": "1", "LEASE_SECONDS": "1"}
    with running.start("backfill", *span(now - 24 * HOUR, now - HOUR), env=slow) as process:
        while len(running.tap.calls_to("/v2/forensics")) < 5:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    running.tap.latency_seconds = 0
    left = running.state()
    assert left["lease"]
    assert left.get("gaps") or left.get("backlog")
    # It waits for the dead run's lease to run out.
    assert running.call_json("backfill", "--resume")["done"]
    assert dict(running.delivered()) == running.truth(now - 24 * HOUR, utc_now())


def test_interrupted_it_ends_with_130_and_an_ordinary_run_goes_on(running: Site, now: datetime) -> None:
    running.tap.latency_seconds = 0.05
    with running.start("backfill", *span(now - 24 * HOUR, now - HOUR)) as process:
        while len(running.tap.calls_to("/v2/siem/all")) < 5:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    running.tap.latency_seconds = 0
    assert running.state()["gaps"]
    assert running.call("run").exit_code == 0
    assert dict(running.delivered()) == running.truth(now - 24 * HOUR, utc_now())


def test_it_goes_on_over_many_runs_where_one_is_not_enough(running: Site, now: datetime) -> None:
    fields = running.call_json("backfill", *span(now - 24 * HOUR, now - HOUR), MAX_THREATS="20")
    assert fields["done"]
    assert len(fields["runs"]) > 1
    assert dict(running.delivered()) == running.truth(now - 24 * HOUR, utc_now())


def test_where_calls_run_out_it_ends_with_3_and_says_why(running: Site, now: datetime) -> None:
    result = running.call("backfill", *span(now - 24 * HOUR, now - HOUR), TAP_FORENSICS_DAILY_LIMIT="12")
    assert result.exit_code == 3
    assert "no forensics calls are left within the limits of 24 hours" in result.stdout
    assert running.state()["backlog"]


def test_an_hour_that_fails_stays_a_gap_and_the_others_come(running: Site, now: datetime) -> None:
    broken = (now - 10 * HOUR, now - 9 * HOUR)
    fault = Fault("status", times=None, status=404)
    running.tap.faults.add("/v2/siem/all", fault, overlapping=broken)
    result = running.call("backfill", *span(now - 24 * HOUR, now - HOUR))
    assert result.exit_code == 3
    gaps = running.state()["gaps"]
    assert gaps[0]["start"] <= iso(broken[0])
    assert gaps[-1]["end"] >= iso(broken[1])
    assert sum(hours(gap) for gap in gaps) < 3
    running.tap.faults.clear()
    assert running.call("backfill", "--resume").exit_code in (0, 3)


def hours(gap: dict[str, Any]) -> float:
    return (datetime.fromisoformat(gap["end"]) - datetime.fromisoformat(gap["start"])) / HOUR


@pytest.mark.parametrize(
    ("start_hours", "end_hours", "words"),
    [
        (2, 3, "is not before --to"),
        (-1, -2, "is not before the cursor"),
        (200, 190, "TAP keeps 7 days"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(
    running: Site, now: datetime, start_hours: int, end_hours: int, words: str
) -> None:
    result = running.call("backfill", *span(now - start_hours * HOUR, now - end_hours * HOUR))
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not running.tap.calls


def test_what_is_partly_to_be_had_is_cut_and_said(running: Site, now: datetime) -> None:
    fields = running.call_json("backfill", "--dry-run", *span(now - 200 * HOUR, now + HOUR))
    assert len(fields["notes"]) == 2
    start = datetime.fromisoformat(fields["window"]["start"])
    assert timedelta(days=7) - HOUR < now - start < timedelta(days=7)
    assert datetime.fromisoformat(fields["window"]["end"]) == now - HOUR


def test_the_schedule_keeps_its_calls(running: Site, now: datetime) -> None:
    result = running.call("backfill", *span(now - 24 * HOUR, now - HOUR), TAP_SIEM_DAILY_LIMIT="30")
    assert result.exit_code == 2
    assert "reserved for the scheduled runs" in " ".join(result.stderr.split())


@pytest.mark.parametrize("words", [[], ["--from", "2026-11-20"], ["--resume", "--to", "2026-11-20"]])
def test_half_an_interval_is_refused(site: Site, words: list[str]) -> None:
    assert site.call("backfill", *words).exit_code == 2


def test_a_moment_that_is_none_is_named(site: Site) -> None:
    result = site.call("backfill", "--from", "yesterday", "--to", "today")
    assert result.exit_code == 2
    assert "ISO 8601" in result.stderr


def test_with_nothing_left_to_resume_nothing_is_called(running: Site) -> None:
    result = running.call("backfill", "--resume")
    assert result.exit_code == 0
    assert "Nothing is left" in result.stdout
    assert running.call_json("backfill", "--resume")["done"]
    assert not running.tap.calls


def test_before_the_first_run_there_is_nothing_to_fill(site: Site, now: datetime) -> None:
    result = site.call("backfill", *span(now - 3 * HOUR, now - HOUR))
    assert result.exit_code == 2
    assert "SINCE_TIME" in result.stderr


def test_a_scheduled_run_that_is_at_work_is_waited_for(running: Site, now: datetime) -> None:
    state = running.state() | {"lease": live_lease() | {"seconds": 2}}
    running.put_state(**state)
    assert running.call_json("backfill", *span(now - 4 * HOUR, now - HOUR))["done"]
    assert running.bucket.get(STATE)


def test_scheduled_runs_meanwhile_end_well_and_nothing_comes_twice(running: Site, now: datetime) -> None:
    running.tap.latency_seconds = 0.05
    with running.start("backfill", *span(now - 12 * HOUR, now - HOUR)) as process:
        while not running.tap.calls:
            assert process.poll() is None
        assert running.call("run").exit_code == 4
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert running.call("run").exit_code == 0
    assert dict(running.delivered()) == running.truth(now - 12 * HOUR, utc_now())


def test_without_forensics_only_events_are_read_again(running: Site, now: datetime) -> None:
    only = {"FORENSICS": "off", "EVENTS_PREFIX": "tap-siem"}
    assert running.call_json("backfill", *span(now - 12 * HOUR, now - HOUR), **only)["done"]
    assert not running.tap.calls_to("/v2/forensics")
    assert running.bucket.names("tap-siem/")
