from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import urllib3

from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site, gate_before, lease_ran_out, live_lease
from tests.support.settings import STATE

LOOKBACK = {"LOOKBACK_HOURS": "6"}


@pytest.fixture(autouse=True)
def soon_noticed(site: Site) -> None:
    """What is mended was at work a moment ago; a repair waits for as long as a lease holds."""
    site.env["LEASE_SECONDS"] = "1"


def test_show_gives_the_document_and_needs_no_credentials(site: Site) -> None:
    assert site.call("run", **LOOKBACK).exit_code == 0
    del site.env["TAP_PRINCIPAL"], site.env["TAP_SECRET"]
    fields = site.call_json("state", "show")
    assert fields["name"] == STATE
    assert fields["generation"] == site.bucket.generation(STATE)
    assert fields["state"] == site.state()
    assert f"{len(fields['state']['collected'])} threats" in site.call("state", "show").stdout


def test_show_without_a_state_says_so_and_with_an_unreadable_one_ends_with_1(site: Site) -> None:
    assert "the first run writes it" in site.call("state", "show").stdout
    assert site.call_json("state", "show")["state"] is None
    site.bucket.put(STATE, "[red]")
    result = site.call("state", "show")
    assert result.exit_code == 1
    assert "cannot be used" in result.stderr


def test_a_state_that_can_be_read_is_not_repaired(site: Site) -> None:
    site.put_state()
    before = site.bucket.generation(STATE)
    assert site.call("state", "repair", "--yes").exit_code == 0
    assert site.call_json("state", "repair", "--yes") == {"repaired": False, "from": None}
    assert site.bucket.generation(STATE) == before


def test_where_there_is_neither_state_nor_evidence_nothing_is_made(site: Site) -> None:
    assert "the first run writes both" in site.call("state", "repair").stdout
    assert not site.bucket.names()


@pytest.mark.parametrize("spoiled", [b"{", None])
def test_a_state_is_built_from_the_evidence_and_nothing_is_lost_or_comes_twice(
    site: Site, spoiled: bytes | None
) -> None:
    begun = utc_now()
    assert site.call("run", MAX_THREATS="3", **LOOKBACK).exit_code == 3
    assert site.state()["backlog"]
    if spoiled is None:
        site.bucket.delete(STATE)
    else:
        site.bucket.put(STATE, spoiled)
    result = site.call("state", "repair", typed="y\n")
    assert result.exit_code == 0
    assert "count as collected" in result.stderr
    assert site.call("run").exit_code == 0
    # Its cursor went back over everything that TAP keeps.
    assert dict(site.delivered()) == site.truth(begun - timedelta(days=7), utc_now())


def test_before_the_first_run_the_published_functions_object_is_pointed_out(site: Site) -> None:
    now = utc_now()
    site.bucket.put("tap-forensics/state.json", json.dumps({"last_event_time": now.isoformat()}))
    site.bucket.put(f"tap-forensics/tap_forensics_{now:%Y%m%d_%H%M%S}.ndjson", '{"_threatId":"a"}\n')
    result = site.call("state", "repair", typed="n\n")
    assert result.exit_code == 1
    assert "its first run takes that over" in result.stderr
    assert STATE not in site.bucket.names()


def test_a_repair_that_is_not_wanted_changes_nothing(site: Site) -> None:
    assert site.call("run", **LOOKBACK).exit_code == 0
    site.bucket.put(STATE, "{")
    assert site.call("state", "repair", typed="n\n").exit_code == 1
    assert site.bucket.get(STATE) == b"{"


@pytest.fixture
def versioned(site: Site) -> Iterator[Site]:
    """The bucket keeps old versions, as the Terraform module's does."""
    name = {"name": "versioned-bucket", "versioning": {"enabled": True}}
    with urllib3.PoolManager(retries=False) as pool:
        url = f"{site.bucket.url}/storage/v1/b?project=demo"
        assert pool.request("POST", url, json=name).status == 200
    site.env["GCS_BUCKET"] = site.bucket.name = "versioned-bucket"
    yield site


def test_the_newest_readable_version_comes_back_and_later_evidence_counts(versioned: Site) -> None:
    begun = utc_now()
    assert versioned.call("run", MAX_THREATS="3", **LOOKBACK).exit_code == 3
    old = versioned.state()
    assert versioned.call("run", **LOOKBACK).exit_code == 0
    # What came after is gone, and the newest version but one with it.
    with urllib3.PoolManager(retries=False) as pool:
        versioned.bucket.put(STATE, "nonsense")
        url = f"{versioned.bucket.url}/storage/v1/b/versioned-bucket/o?versions=true&prefix=state/"
        versions = pool.request("GET", url).json()["items"]
    assert len(versions) > 3
    fields = versioned.call_json("state", "repair", "--yes")
    assert (fields["repaired"], fields["from"]) == (True, "version")
    assert fields["cursor"] >= old["last_event_time"]
    assert versioned.call("run", **LOOKBACK).exit_code == 0
    assert dict(versioned.delivered()) == versioned.truth(begun - timedelta(hours=6), utc_now())


def test_of_an_old_version_the_threats_that_came_since_are_not_fetched_again(versioned: Site) -> None:
    begun = utc_now()
    versioned.put_state()
    assert versioned.call("run", **LOOKBACK).exit_code == 0
    delivered = versioned.delivered()
    # As if the first version were the only one left.
    versioned.bucket.delete(STATE)
    versioned.put_state(last_event_time=begun - timedelta(hours=6))
    versioned.bucket.put(STATE, "nonsense")
    fields = versioned.call_json("state", "repair", "--yes")
    assert fields["threats_found"] == len(delivered)
    assert versioned.call("run", **LOOKBACK).exit_code == 0
    # The overlap of an hour with it.
    assert dict(versioned.delivered()) == versioned.truth(begun - timedelta(hours=7), utc_now())


def test_a_version_comes_back_with_its_lease_so_that_its_run_goes_on_or_is_taken_over(
    versioned: Site,
) -> None:
    versioned.put_state(lease=live_lease())
    versioned.bucket.put(STATE, "nonsense")
    assert versioned.call("state", "repair", "--yes").exit_code == 0
    assert versioned.state()["lease"]["owner"] == "another"
    assert versioned.call("run").exit_code == 4


def test_reset_asks_keeps_a_copy_outside_the_feeds_and_the_count_of_calls(site: Site) -> None:
    assert site.call("run", **LOOKBACK).exit_code == 0
    before = site.bucket.get(STATE)
    assert site.call("state", "reset", typed="n\n").exit_code == 1
    assert site.bucket.get(STATE) == before
    result = site.call("state", "reset", typed="y\n")
    assert result.exit_code == 0
    (copy,) = [name for name in site.bucket.names("state/") if "before-reset" in name]
    assert site.bucket.get(copy) == before
    after = site.state()
    assert set(after) == {"version", "last_run_id", "calls"}
    assert after["calls"] == json.loads(before)["calls"]
    # The next run is a first one, though the published function's object lies there with a cursor.
    stats = site.call_json("run", LOOKBACK_HOURS="3")
    assert stats["windows"] == 3


@pytest.mark.parametrize("command", ["reset", "repair"])
def test_a_machine_is_not_asked(site: Site, command: str) -> None:
    result = site.call("state", command, "--json")
    assert result.exit_code == 2
    assert "--yes" in result.stderr


def test_without_an_answer_nothing_is_changed(site: Site) -> None:
    site.put_state(last_owner="somebody")
    result = site.call("state", "reset", typed="")
    assert result.exit_code == 1
    assert "nothing was changed" in result.stderr
    assert site.state()["last_owner"] == "somebody"


def test_a_state_whose_lease_is_live_is_not_reset_and_one_that_ran_out_is(site: Site) -> None:
    lease = live_lease()
    site.put_state(lease=lease)
    assert site.call("state", "reset", "--yes").exit_code == 4
    assert "lease" in site.state()
    site.put_state(lease=lease | {"seconds": 1})
    lease_ran_out(site)
    assert site.call("state", "reset", "--yes").exit_code == 0
    assert site.state()["last_run_id"] == lease["run_id"]


def test_a_state_that_changed_meanwhile_is_not_written_over(site: Site, monkeypatch: Any) -> None:
    site.put_state()

    def answer(*_: object, **__: object) -> bool:
        site.put_state(last_owner="somebody")
        return True

    monkeypatch.setattr("click.confirm", answer)
    result = site.call("state", "reset")
    assert result.exit_code == 1
    assert "was changed in the meantime" in result.stderr
    assert site.state()["last_owner"] == "somebody"


def test_only_what_repair_needs_is_read(site: Site) -> None:
    assert site.call("run", **LOOKBACK).exit_code == 0
    old = utc_now() - timedelta(days=9)
    site.bucket.put(f"tap-forensics/tap_forensics_{old:%Y%m%d_%H%M%S}.ndjson", '{"_threatId":"old"}\n')
    site.bucket.put(STATE, "{")
    with gate_before(site.bucket) as gate:
        site.env["STORAGE_EMULATOR_HOST"] = gate.url
        assert site.call_json("state", "repair", "--yes")["objects_read"] == 1
        read = [asked for asked in gate.asked if "alt=media" in asked and "ndjson" in asked]
    assert len(read) == 1


def put_tenants_evidence(site: Site) -> None:
    """Its name sorts after `tap_forensics_`, the single tenant's objects."""
    name = f"tap_forensics_{utc_now():%Y%m%d_%H%M%S}.ndjson"
    for folder in ("tap-forensics/zeta", "tap-forensics/tap_forensics_zeta"):
        site.bucket.put(f"{folder}/{name}", '{"_threatId":"of zeta"}\n')


def test_a_tenants_evidence_is_not_the_single_tenants(site: Site) -> None:
    assert site.call("run", **LOOKBACK).exit_code == 0
    delivered = site.delivered()
    put_tenants_evidence(site)
    site.bucket.put(STATE, "{")
    fields = site.call_json("state", "repair", "--yes")
    assert (fields["objects_read"], fields["threats_found"]) == (1, len(delivered))
    assert "of zeta" not in site.state()["collected"]


def test_a_tenants_evidence_does_not_tell_that_a_state_is_missing(site: Site) -> None:
    put_tenants_evidence(site)
    assert site.call_json("state", "repair", "--yes") == {"repaired": False, "from": None}
    assert STATE not in site.bucket.names()


@pytest.mark.parametrize("spoiled", [b"{", None])
def test_a_run_at_work_while_its_state_is_spoiled_and_mended_repeats_nothing(
    site: Site, spoiled: bytes | None
) -> None:
    begun = utc_now()
    assert site.call("run", MAX_THREATS="3", **LOOKBACK).exit_code == 3
    site.tap.forget_calls()
    site.tap.latency_seconds = 0.1
    slow = {"LEASE_SECONDS": "3", "FETCH_CONCURRENCY": "1"}
    with site.start("run", env=slow) as process:
        while len(site.tap.calls_to("/v2/forensics")) < 5:
            assert process.poll() is None
        if spoiled is None:
            site.bucket.delete(STATE)
        else:
            site.bucket.put(STATE, spoiled)
        result = site.call("state", "repair", "--yes", LEASE_SECONDS="3")
        assert result.exit_code == 0
        assert "Waiting" in result.stderr
        process.communicate(timeout=60)
    assert process.returncode == 1
    site.tap.latency_seconds = 0
    assert site.call("run").exit_code == 0
    assert dict(site.delivered()) == site.truth(begun - timedelta(days=7), utc_now())
