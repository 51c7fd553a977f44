from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site, gate_before, lease_ran_out, live_lease
from tests.support.settings import STATE

OBJECTS = 10_000


def test_it_needs_no_credentials_takes_no_lease_and_writes_nothing(site: Site) -> None:
    assert site.call("run").exit_code == 0
    before = site.bucket.generation(STATE)
    del site.env["TAP_PRINCIPAL"], site.env["TAP_SECRET"]
    result = site.call("status")
    assert result.exit_code == 0
    assert site.state()["last_run_id"] in result.stdout
    assert site.bucket.generation(STATE) == before


def test_backlog_by_priority_gaps_with_their_time_left_and_calls_with_their_return(site: Site) -> None:
    now = utc_now()
    seen = {"first_seen": now - timedelta(hours=5)}
    backlog = {
        "a": {"priority": 0, **seen},
        "b": {"priority": 2, "first_seen": now},
        "c": {"priority": 2, "attempts": 1, **seen},
    }
    gap = {"start": now - timedelta(days=6), "end": now - timedelta(days=5), "since": now, "attempts": 4}
    bucket = int((now - timedelta(hours=23)).timestamp()) // 600
    calls = {"siem": {"buckets": {str(bucket): 7, "1": 9000}}}
    site.put_state(last_event_time=now, backlog=backlog, gaps=[gap], calls=calls, lease=live_lease())
    fields = site.call_json("status")
    assert [(b["priority"], b["threats"], b["failing"]) for b in fields["backlog"]] == [(0, 1, 0), (2, 2, 1)]
    assert 0 < fields["gaps"][0]["seconds_left"] <= 24 * 3600 - 300
    assert fields["calls"]["siem"]["used"] == 7
    assert fields["calls"]["siem"]["left"] == 1800 - 7
    assert fields["calls"]["siem"]["next_back"] > fields["now"]
    assert fields["lease"]["live"]
    result = site.call("status")
    assert "permitted clicks" in result.stdout
    assert "23 h" in result.stdout
    assert "lease holds until" in result.stdout


def test_it_names_each_remedy_that_check_names(site: Site) -> None:
    now = utc_now()
    gap = {"start": now - timedelta(days=6, hours=20), "end": now - timedelta(days=6), "since": now}
    lease = live_lease() | {"seconds": 1, "started": now - timedelta(hours=1)}
    full = {str(int((now - timedelta(hours=2)).timestamp()) // 600): 1800}
    calls = {"siem": {"buckets": full}, "forensics": {"limited_at": now}}
    site.put_state(last_event_time=now - timedelta(hours=9), gaps=[gap], lease=lease, calls=calls)
    lease_ran_out(site)
    about = ("state place", "state", "lease", "gaps", "calls", "events' memory")
    check = [one for one in site.call_json("check")["findings"] if one["about"] in about and one["remedy"]]
    status = site.call_json("status")["findings"]
    assert [(one["about"], one["remedy"]) for one in status] == [
        (one["about"], one["remedy"]) for one in check
    ]
    assert [one["about"] for one in status] == ["state", "lease", "gaps", "calls", "calls"]
    printed = site.call("status").stdout
    assert all(f"→ {one['remedy']}" in printed for one in status)


def test_without_a_fault_it_has_no_remedy(site: Site) -> None:
    assert site.call("run").exit_code == 0
    assert site.call_json("status")["findings"] == []
    assert "→" not in site.call("status").stdout


def test_hostile_names_and_words_do_not_act_on_the_terminal(site: Site) -> None:
    lost = {"start": utc_now(), "end": utc_now(), "why": "\x1b]0;title\x07[red]x[/red]"}
    site.put_state(lost=[lost], last_run_id=utc_now().strftime("%Y%m%d_%H%M%S"))
    name = f"tap-forensics/tap_forensics_{utc_now():%Y%m%d_%H%M%S}\x1b[2J[bold].ndjson"
    site.bucket.put(name, "{}")
    out = site.call("status").stdout
    assert "[red]x[/red]" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_a_state_that_cannot_be_read_ends_it_with_1(site: Site) -> None:
    site.bucket.put(STATE, "{")
    assert site.call("status").exit_code == 1
    assert site.call_json("status")["error"] == "StateUnreadable"


@pytest.fixture
def many(tmp_path: Path) -> Iterator[FakeBucket]:
    """One object every quarter of an hour, for months.

    The server takes 10,000 uploads in a minute. What it keeps beside a file's bytes is an extended attribute,
    which is copied from one upload to files of our own.
    """
    if not hasattr(os, "setxattr"):
        pytest.skip("this system's Python cannot write extended attributes")
    now = utc_now()
    with FakeBucket(folder=tmp_path) as bucket:
        bucket.put("tap-forensics/first", "{}")
        first = tmp_path / bucket.name / "tap-forensics" / "first"
        marks = {name: os.getxattr(first, name) for name in os.listxattr(first)}
        for number in range(OBJECTS):
            moment = now - timedelta(minutes=15 * number)
            path = first.with_name(f"tap_forensics_{moment:%Y%m%d_%H%M%S}.ndjson")
            path.write_bytes(b"{}")
            for name, value in marks.items():
                os.setxattr(path, name, value)
        yield bucket


def test_ten_thousand_objects_cost_a_few_requests(
    many: FakeBucket, capsys: pytest.CaptureFixture[str]
) -> None:
    with gate_before(many) as gate:
        site = Site(None, many, {"GCS_BUCKET": many.name, "STORAGE_EMULATOR_HOST": gate.url})  # type: ignore[arg-type]  # no TAP here
        begun = time.monotonic()
        (newest,) = site.call_json("status")["newest"].values()
        took = time.monotonic() - begun
        assert len(newest) == 5
        assert newest[0]["name"] > newest[1]["name"]
        listings = [asked for asked in gate.asked if f"/b/{many.name}/o?" in asked]
        assert len(listings) <= 3
        with capsys.disabled():
            print(f" [status on {OBJECTS} objects: {took:.2f} s, {len(listings)} listings]", end="")  # noqa: T201


def test_the_newest_objects_are_the_tenants_own(site: Site) -> None:
    moment = f"{utc_now():%Y%m%d_%H%M%S}"
    feeds = {
        "tap-forensics": f"tap_forensics_{moment}.ndjson",
        "tap-siem": f"tap_siem_events_{moment}.ndjson",
    }
    for feed, name in feeds.items():
        for folder in (feed, f"{feed}/zeta", f"{feed}/{name[:8]}_zeta"):
            site.bucket.put(f"{folder}/{name}", "{}\n")
    newest = site.call_json("status", EVENTS_PREFIX="tap-siem")["newest"]
    assert {feed: [found["name"] for found in listed] for feed, listed in newest.items()} == {
        feed: [f"{feed}/{name}"] for feed, name in feeds.items()
    }
