"""The audit on a small bucket that a real run has filled."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tap_forensics.clock import iso
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site, live_lease
from tests.support.audit_scene import forget_in_index
from tests.support.fleet import mount_one
from tests.support.lab_bucket import keep_versions
from tests.support.report.hostile import TRICKS
from tests.support.settings import STATE

HOUR = timedelta(hours=1)
SIEM = "/v2/siem/all"


@pytest.fixture
def collected(site: Site) -> Site:
    """The last day is in the bucket, events too."""
    site.env |= {"EVENTS_PREFIX": "tap-siem", "LOOKBACK_HOURS": "24"}
    assert site.call("run").exit_code == 0
    site.tap.forget_calls()
    return site


def day(*more: str) -> tuple[str, ...]:
    return ("audit", "--from", iso(utc_now() - 23 * HOUR), *more)


def remove_event(site: Site) -> None:
    """One line of the middle of the day goes, as if it had never been delivered."""
    names = site.bucket.names("tap-siem/")
    name = next(name for name in names[len(names) // 2 :] if site.bucket.get(name).count(b"\n") > 1)
    line, *others = site.bucket.get(name).splitlines(keepends=True)
    site.bucket.put(name, b"".join(others))
    forget_in_index(site.bucket, line.rstrip())


def remove_threat(site: Site) -> str:
    """All lines of one threat outside campaigns go, as if it had never been collected. Returns its id."""
    now = utc_now()
    shown = site.truth(now - 20 * HOUR, now - 3 * HOUR)
    threat_id = next(name for name in shown if site.tap.world.threats[name].campaign is None)
    [name] = [name for name in site.bucket.names("tap-forensics/") if name.endswith(".ndjson")]
    kept = [
        line for line in site.bucket.get(name).splitlines(keepends=True) if threat_id.encode() not in line
    ]
    site.bucket.put(name, b"".join(kept))
    state = site.state()
    del state["collected"][threat_id]
    site.bucket.put(STATE, json.dumps(state))
    return threat_id


def found(result: dict[str, Any]) -> dict[str, int]:
    return {kind: entry["count"] for kind, entry in result["findings"].items()}


def test_a_complete_day_is_proven_and_nothing_is_written(collected: Site) -> None:
    before = collected.bucket.objects()
    result = collected.call_json(*day())
    assert result["complete"] is True
    assert collected.call(*day()).exit_code == 0
    assert collected.bucket.objects() == before
    windows = len(collected.tap.calls_to(SIEM)) / 2
    assert result["calls"]["siem_needed"] == result["calls"]["siem_made"] == windows
    assert not collected.tap.calls_to("/v2/forensics")
    assert sum(row["missing"] for row in result["days"]) == 0
    assert sum(row["shown"] for row in result["days"]) > 50


def test_without_an_end_it_stops_where_late_events_may_still_come(collected: Site) -> None:
    result = collected.call_json(*day())
    cursor = datetime.fromisoformat(collected.state()["last_event_time"])
    assert datetime.fromisoformat(result["to"]) == cursor - HOUR


def test_a_repair_puts_back_what_is_missing_and_the_next_run_delivers_it(collected: Site) -> None:
    threat_id = remove_threat(collected)
    remove_event(collected)
    before = collected.state()
    result = collected.call_json(*day("--repair"))
    assert found(result)["threats_missing"] == 1
    assert found(result)["events_missing"] == 1
    assert result["repaired"] == {"threats": 1, "windows": 1}
    after = collected.state()
    assert list(after["backlog"]) == [threat_id]
    assert len(after["gaps"]) == 1
    assert "lease" not in after
    assert (
        calls_in(after) - calls_in(before) == result["calls"]["siem_made"] + result["calls"]["forensics_made"]
    )
    assert collected.call("run").exit_code == 0
    assert collected.call_json(*day())["complete"] is True


def test_summaries_that_were_switched_on_later_do_not_excuse_a_missing_event(collected: Site) -> None:
    remove_event(collected)
    # The index would decide alone.
    collected.bucket.delete(f"{STATE}.seen")
    collected.env["SUMMARIES_PREFIX"] = "tap-summaries"
    counts = found(collected.call_json(*day()))
    assert counts["events_missing"] == 1
    assert "events_undecided" not in counts


def calls_in(state: dict[str, Any]) -> int:
    return sum(sum(pool.get("buckets", {}).values()) for pool in state["calls"].values())


def test_a_repair_waits_for_a_run_at_work_and_then_gives_up_with_4(collected: Site) -> None:
    remove_threat(collected)
    collected.bucket.put(STATE, json.dumps(collected.state() | {"lease": live_lease()}, default=iso))
    before = collected.bucket.objects()
    result = collected.call(*day("--repair", "--wait", "0"))
    assert result.exit_code == 4
    assert "Threats without a line" in result.stdout
    assert "nothing was repaired: run" in result.stderr
    assert collected.bucket.objects() == before


def test_a_threat_that_only_tap_can_explain_is_asked_for_and_believed(collected: Site) -> None:
    """A 404 is TAP's own only if it answers another threat, so one with a line is asked for first."""
    del collected.env["EVENTS_PREFIX"]
    unknown = collected.tap.world.add_threat(answer="unknown").id
    collected.tap.world.add_event("messagesBlocked", [unknown], created=utc_now() - 3 * HOUR)
    result = collected.call_json(*day())
    assert result["complete"] is True
    assert {"name": unknown, "why": "TAP itself says so"} in result["findings"]["threats_without_report"][
        "named"
    ]
    assert result["calls"]["forensics_made"] == 2
    refused = collected.call_json(*day("--forensics-calls", "0"))
    assert found(refused)["threats_undecided"] == 1
    assert refused["complete"] is None


def test_too_few_calls_are_said_before_any_is_made(collected: Site) -> None:
    result = collected.call(*day(), TAP_SIEM_DAILY_LIMIT="50")
    assert result.exit_code == 3
    assert "needed" in result.stdout
    assert "give a shorter interval, or wait" in " ".join(result.stderr.split())
    assert collected.call(*day("--max-calls", "5")).exit_code == 3
    assert collected.call_json(*day("--max-calls", "5"))["complete"] is None
    assert not collected.tap.calls


def test_a_tap_that_is_down_decides_nothing(collected: Site) -> None:
    collected.tap.faults.add(SIEM, Fault("status", times=None, status=404))
    result = collected.call_json(*day())
    assert (result["complete"], collected.call(*day()).exit_code) == (None, 3)
    assert found(result)["windows_unread"] == result["calls"]["siem_needed"]
    # After three failures in a row the others are not tried.
    assert result["calls"]["siem_made"] == 3


def test_refused_credentials_decide_nothing(collected: Site) -> None:
    result = collected.call(*day(), TAP_SECRET="wrong")  # noqa: S106 - of the stand-in
    assert result.exit_code == 3
    assert "TAP answered 401" in result.stderr


def test_a_window_that_fails_leaves_the_rest_decided(collected: Site) -> None:
    now = utc_now()
    fault = Fault("status", times=None, status=404)
    collected.tap.faults.add(
        SIEM, fault, overlapping=(now - 10 * HOUR, now - 10 * HOUR + timedelta(seconds=1))
    )
    result = collected.call_json(*day())
    assert found(result)["windows_unread"] == 1
    assert result["complete"] is None


def test_a_heavy_window_is_read_in_halves(collected: Site) -> None:
    now = utc_now()
    span = (now - 10 * HOUR, now - 10 * HOUR + timedelta(seconds=1))
    collected.tap.faults.add(SIEM, Fault("body", times=1, body=b"[" * 100_000), overlapping=span)
    collected.tap.faults.add(SIEM, Fault("status", times=3), overlapping=span)
    result = collected.call_json(*day())
    assert result["complete"] is True
    assert result["calls"]["siem_made"] > result["calls"]["siem_needed"]


def test_what_a_feed_has_deleted_is_read_from_its_versions(collected: Site) -> None:
    keep_versions(collected.bucket)
    for name in collected.bucket.names("tap-"):
        if name.endswith(".ndjson"):
            collected.bucket.delete(name)
    assert collected.call_json(*day())["complete"] is True


def test_what_a_feed_has_deleted_without_a_version_is_not_called_missing(collected: Site) -> None:
    for name in collected.bucket.names("tap-"):
        if name.endswith(".ndjson"):
            collected.bucket.delete(name)
    result = collected.call_json(*day())
    assert (result["complete"], collected.call(*day()).exit_code) == (None, 3)
    assert found(result).keys() <= {"threats_undecided", "events_undecided", "threats_covered"}
    # Later the state no longer has them, and TAP, which is asked, has reports.
    collected.bucket.put(STATE, json.dumps(collected.state() | {"collected": {}}))
    later = collected.call_json(*day())
    assert later["calls"]["forensics_made"] > 0
    assert "threats_missing" not in found(later)


def test_the_time_it_may_take_is_bounded(collected: Site) -> None:
    collected.tap.latency_seconds = 0.3
    result = collected.call_json(*day("--max-seconds", "1"))
    assert result["complete"] is None
    assert 1 < found(result)["windows_unread"] < result["calls"]["siem_needed"]


def test_a_run_that_delivers_meanwhile_leaves_nothing_missing(collected: Site) -> None:
    """An hour that was not read yet: the run reads it while the audit reads TAP."""
    state, now = collected.state(), utc_now()
    remove_event(collected)
    gap = {"start": now - 24 * HOUR, "end": now - 2 * HOUR, "since": now}
    collected.bucket.put(STATE, json.dumps(state | {"gaps": [gap]}, default=iso))
    assert found(collected.call_json(*day()))["events_open"] == 1
    # The last window waits until a run has ended.
    last = (now - timedelta(minutes=63), now - timedelta(minutes=62))
    collected.tap.faults.add(SIEM, Fault("hang"), overlapping=last)
    with collected.start(*day("--json")) as process:
        while not collected.tap.faults.counts()[0][1]:
            assert process.poll() is None
        assert collected.call("run").exit_code == 0
        collected.tap.faults.release()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert found(json.loads(output)).keys() <= {"threats_covered", "threats_without_report"}


@pytest.mark.parametrize("start", ["now", "8 days ago"])
def test_an_interval_that_cannot_be_compared_is_a_usage_error(collected: Site, start: str) -> None:
    moment = utc_now() if start == "now" else utc_now() - timedelta(days=8)
    more = [] if start == "now" else ["--to", iso(moment + HOUR)]
    result = collected.call("audit", "--from", iso(moment), *more)
    assert result.exit_code == 2
    assert "can be compared" in " ".join(result.stderr.split())


def test_before_the_first_run_there_is_nothing_to_audit(site: Site) -> None:
    assert site.call(*day()).exit_code == 2


def test_only_threats_or_only_events_are_compared_as_the_settings_say(collected: Site) -> None:
    without_events = collected.env.pop("EVENTS_PREFIX")
    assert {row["kind"] for row in collected.call_json(*day())["days"]} == {"threats"}
    result = collected.call_json(*day(), EVENTS_PREFIX=without_events, FORENSICS="off")
    assert "threats" not in {row["kind"] for row in result["days"]}


def test_a_tenant_is_compared_with_its_own_folder(site: Site, tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    mount_one(tmp_path, "acme", site.env.pop("TAP_PRINCIPAL"), site.env.pop("TAP_SECRET"))
    site.env |= {"TENANTS_DIR": str(tmp_path), "EVENTS_PREFIX": "tap-siem", "LOOKBACK_HOURS": "24"}
    assert site.call("run", "--tenant", "acme").exit_code == 0
    # Of another tenant, in whose folder the feed of this one does not look.
    site.bucket.put("tap-siem/globex/odd.ndjson", b"{")
    result = site.call_json(*day("--tenant", "acme"))
    assert result["complete"] is True
    assert sum(row["in_bucket"] for row in result["days"]) > 50


def test_without_a_folder_neither_state_nor_hand_over_is_taken_for_evidence(site: Site) -> None:
    site.env |= {"GCS_PREFIX": "", "LOOKBACK_HOURS": "24"}
    assert site.call("run").exit_code == 0
    assert site.call_json(*day())["complete"] is True


def test_nothing_hostile_reaches_terminal_or_page(collected: Site, tmp_path: Path) -> None:
    """Texts of TAP and names of objects, in every finding that quotes them."""
    for number, trick in enumerate(TRICKS):
        body = {"GUID": trick, "id": trick, "messageTime": trick, "recipient": [trick], "threatsInfoMap": []}
        collected.tap.world.add_event("messagesDelivered", created=utc_now() - 3 * HOUR, body=body)
        collected.bucket.put(f"tap-siem/{number}{trick[:300]}.ndjson".replace("//", "/"), b"{")
    page = tmp_path / "page.html"
    result = collected.call(*day("--html", str(page)))
    assert result.exit_code == 1
    assert all(line.isprintable() for line in result.output.splitlines())
    html = page.read_text(encoding="utf-8")
    for sign in ("<script", "<img", "<iframe", "<svg", "<base", "<link", "onerror=window", "\u202e", "\x1b"):
        assert sign not in html.replace("&lt;", "").replace("&#34;", "") or sign == "onerror=window"
    assert "default-src &#39;none&#39;" in html
    assert "Not complete." in html


def test_the_page_has_the_counts_by_day_and_kind(collected: Site, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = collected.call_json(*day("--html", str(page)))
    html = page.read_text(encoding="utf-8")
    assert "Complete: the bucket has everything that TAP shows" in html
    for row in result["days"]:
        assert f'<td>{row["day"]}</td><td>{row["kind"]}</td><td class="number">{row["shown"]:,}</td>' in html
    assert "<script" not in html
