"""Each thing that the doctor can find is made to be found."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import trustme

from tap_forensics.cli.check_rights import CREATE, DELETE, GET, LIST, UNWANTED
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.processes import free_port
from tap_forensics.sandbox.tap_api import utc_now
from tap_forensics.storage.remedies import GIVE_FUNCTION_ROLES
from tests.integration.cli.conftest import Site, gate_before, lease_ran_out, live_lease
from tests.support.loopback import Answering, answer, serving
from tests.support.settings import STATE

SIEM = "/v2/siem/all"


def findings(site: Site, about: str, **env: str) -> list[dict[str, Any]]:
    return [found for found in site.call_json("check", **env)["findings"] if found["about"] == about]


def the_one(site: Site, about: str, **env: str) -> tuple[str, str]:
    (found,) = findings(site, about, **env)
    return found["mark"], f"{found['words']} {found['remedy']}"


def test_all_is_well_with_one_siem_call_and_nothing_written(site: Site) -> None:
    assert site.call("run").exit_code == 0
    site.tap.forget_calls()
    before = site.bucket.objects()
    result = site.call("check")
    assert result.exit_code == 0
    assert "✗" not in result.stdout
    assert "✓ credentials" in result.stdout
    assert "! rights: an emulator has no rights" in result.stdout
    assert len(site.tap.calls) == 1
    assert site.bucket.objects() == before


def test_wrong_settings_are_all_named(site: Site) -> None:
    result = site.call("check", MAX_THREATS="many", GCS_BUCKET="")
    assert result.exit_code == 2
    assert result.stdout.count("✗ settings") == 2


@pytest.mark.parametrize(
    ("status", "mark", "words"),
    [
        (401, "wrong", "TAP_PRINCIPAL or TAP_SECRET is wrong or was revoked make a new service credential"),
        (403, "wrong", "no right to this API ask for SIEM and Forensics"),
        (429, "wrong", "calls of the last 24 hours are used up wait"),
        (302, "wrong", "a redirect, which is never followed check TAP_API_BASE"),
        (404, "wrong", "answered 404 check TAP_API_BASE"),
        (503, "warning", "answered 503: the API is in trouble"),
    ],
)
def test_each_answer_of_tap_has_its_remedy(site: Site, status: int, mark: str, words: str) -> None:
    site.tap.faults.add(SIEM, Fault("status", status=status))
    found, sentence = the_one(site, "credentials")
    assert found == mark
    assert words in sentence


def test_no_route_is_told_from_no_name_and_from_no_answer(site: Site) -> None:
    refused = f"https://127.0.0.1:{free_port()}"
    assert "no route to 127.0.0.1" in the_one(site, "route", TAP_API_BASE=refused)[1]
    assert "has no address in DNS" in the_one(site, "route", TAP_API_BASE="https://tap.example.invalid")[1]
    site.tap.faults.add(SIEM, Fault("reset"))
    assert "accepted the connection but did not answer" in the_one(site, "route")[1]


def test_a_certificate_that_nobody_trusts_is_told(site: Site) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    with serving(Answering(answer(b"")), tls) as port:
        assert "is not trusted" in the_one(site, "route", TAP_API_BASE=f"https://localhost:{port}")[1]


def test_a_proxy_that_cannot_be_reached_that_wants_a_password_and_that_refuses(site: Site) -> None:
    api = {"TAP_API_BASE": "https://tap.example.com"}
    gone = f"http://user:hunter2@127.0.0.1:{free_port()}"
    assert "cannot be reached" in the_one(site, "proxy", HTTPS_PROXY=gone, **api)[1]
    assert "hunter2" not in site.call("check", HTTPS_PROXY=gone, **api).output
    for status, words in (
        ("407 Who are you", "requires credentials (407)"),
        ("403 No", "refuses connections"),
    ):
        with serving(Answering(answer(b"", status))) as port:
            assert words in the_one(site, "proxy", HTTPS_PROXY=f"http://127.0.0.1:{port}", **api)[1]


@pytest.mark.parametrize(("minutes", "mark"), [(0, "ok"), (5, "warning"), (-5, "warning"), (90, "wrong")])
def test_the_clock_is_compared_with_taps(site: Site, minutes: int, mark: str) -> None:
    site.tap.clock = lambda: utc_now() + timedelta(minutes=minutes)
    found, words = the_one(site, "clock")
    assert found == mark
    assert "behind" in words or minutes <= 0
    assert "ahead" in words or minutes >= 0


# As deployed: on the bucket only listing, everything else on names in these folders.
DEPLOYED = {"state/tap-forensics/": [GET, CREATE, DELETE], "tap-forensics/": [CREATE, GET]}
IN_A_FOLDER = {"STATE_KEY": STATE}


@contextmanager
def with_rights(site: Site, *rights: str, **on_names: list[str]) -> Iterator[dict[str, str]]:
    with gate_before(site.bucket) as gate:
        gate.rights, gate.object_rights = list(rights), on_names
        yield {"STORAGE_EMULATOR_HOST": gate.url, **IN_A_FOLDER}


def test_the_rights_that_are_deployed_suffice_and_nothing_is_written(site: Site) -> None:
    before = site.bucket.objects()
    with with_rights(site, LIST, **DEPLOYED) as env:
        assert the_one(site, "rights", **env)[0] == "ok"
    assert site.bucket.objects() == before


@pytest.mark.parametrize(
    ("folder", "right", "purpose"),
    [
        (folder, right, "state" if "state" in folder else "died")
        for folder in DEPLOYED
        for right in DEPLOYED[folder]
    ],
)
def test_a_right_that_is_lacking_in_a_folder_is_named_with_its_use(
    site: Site, folder: str, right: str, purpose: str
) -> None:
    less = {**DEPLOYED, folder: [held for held in DEPLOYED[folder] if held != right]}
    with with_rights(site, LIST, **less) as env:
        found, words = the_one(site, "rights", **env)
    assert found == "wrong"
    assert f"lacks {right} on gs://{site.bucket.name}/{folder}" in words
    assert purpose in words
    assert GIVE_FUNCTION_ROLES in words


def test_without_the_right_to_list_this_is_told_of_the_bucket(site: Site) -> None:
    with with_rights(site, **DEPLOYED) as env:
        assert f"lacks {LIST} on gs://{site.bucket.name}, to tell" in the_one(site, "rights", **env)[1]


def test_each_folder_and_the_published_functions_state_are_asked_about(site: Site) -> None:
    """Its variables have no STATE_KEY, so its state is in the evidence folder, where nothing is replaced."""
    with with_rights(site, LIST, **DEPLOYED) as env:
        words = [
            found["words"]
            for found in findings(site, "rights", EVENTS_PREFIX="tap-siem", **{**env, "STATE_KEY": ""})
        ]
    assert [re.sub(r"^.* lacks (.*), to .*$", r"\1", each) for each in words] == [
        f"{CREATE}, {GET} on gs://{site.bucket.name}/tap-siem/tap_siem_events_check.ndjson",
        f"{DELETE} on gs://{site.bucket.name}/tap-forensics/state.json",
    ]


def test_a_service_that_does_not_tell_rights_on_objects_is_a_warning(site: Site) -> None:
    with gate_before(site.bucket) as gate:
        gate.rights, gate.object_status = [LIST], 404
        env = {"STORAGE_EMULATOR_HOST": gate.url, **IN_A_FOLDER}
        marks = [found["mark"] for found in findings(site, "rights", **env)]
    assert marks == ["warning", "warning"]


def test_rights_on_the_whole_bucket_suffice_and_more_is_warned_of(site: Site) -> None:
    with with_rights(site, CREATE, GET, LIST, *UNWANTED) as env:
        found = findings(site, "rights", **env)
        assert [each["mark"] for each in found] == ["ok", *["warning"] * len(UNWANTED)]
        assert f"{DELETE} on all of" in found[1]["words"]
        assert site.call("check", **env).exit_code == 0


def test_a_bucket_that_is_forbidden_or_not_there_is_told(site: Site) -> None:
    with gate_before(site.bucket) as gate:
        gate.refuses = 403
        assert "(403)" in the_one(site, "bucket", STORAGE_EMULATOR_HOST=gate.url)[1]
    assert "there is no such bucket" in the_one(site, "bucket", GCS_BUCKET="not-there")[1]


def test_without_google_credentials_the_remedy_is_named(site: Site, tmp_path: Any) -> None:
    nowhere = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none"), "STORAGE_EMULATOR_HOST": ""}
    assert "gcloud auth application-default login" in the_one(site, "bucket", **nowhere)[1]


def test_a_state_that_cannot_be_read_leads_to_repair(site: Site) -> None:
    site.bucket.put(STATE, "{")
    assert the_one(site, "state")[1].endswith("tap-forensics state repair")
    assert site.call("check").exit_code == 1


def test_a_cursor_that_lags_a_dead_run_and_a_gap_are_warned_of(site: Site) -> None:
    now = utc_now()
    dead = live_lease() | {"seconds": 1}
    gap = {"start": now - timedelta(days=6), "end": now - timedelta(days=5), "since": now}
    site.put_state(last_event_time=now - timedelta(hours=3), lease=dead, gaps=[gap])
    lease_ran_out(site)
    assert the_one(site, "state")[0] == "warning"
    assert "died" in the_one(site, "lease")[1]
    assert "1 interval could" in the_one(site, "gaps")[1]
    site.bucket.put(STATE, '{"version": 1, "last_event_time": "2026-01-01T00:00:00Z"}')
    assert the_one(site, "state")[0] == "wrong"


def test_a_bucket_that_one_feed_reads_whole_is_warned_of(site: Site) -> None:
    assert "GCS_PREFIX is empty" in the_one(site, "state place", GCS_PREFIX="")[1]
    assert the_one(site, "state place")[0] == "ok"


def test_calls_that_are_used_up_and_few_that_are_left(site: Site) -> None:
    bucket = str(int(utc_now().timestamp()) // 600)
    site.put_state(calls={"siem": {"buckets": {bucket: 95}}, "forensics": {"limited_at": utc_now()}})
    marks = [found["mark"] for found in findings(site, "calls", TAP_SIEM_DAILY_LIMIT="95")]
    assert marks == ["wrong", "warning"]
    assert findings(site, "calls", TAP_SIEM_DAILY_LIMIT="100")[0]["mark"] == "warning"


def test_what_a_feed_would_fail_at_is_found(site: Site) -> None:
    site.bucket.put("tap-forensics/good.ndjson", (b"x" * 1_500_000 + b"\n") * 3)
    assert the_one(site, "objects")[0] == "ok"
    site.bucket.put("tap-forensics/long.ndjson", b"{}\n" + b"x" * 4_000_001 + b"\n{}\n")
    site.bucket.put("tap-forensics//lost.ndjson", "{}")
    site.bucket.put("tap-forensics/\x1b[31mempty.ndjson", "")
    found = {f["mark"]: f["words"] for f in findings(site, "objects")}
    assert "lines over 4 MB" in found["wrong"]
    assert "long.ndjson" in found["wrong"]
    assert "good.ndjson" not in found["wrong"]
    assert "1 empty object:" in found["warning"]
    output = site.call("check").output
    assert "//lost.ndjson" in output
    assert "\x1b" not in output


def test_a_memory_of_events_that_cannot_be_read_is_told(site: Site) -> None:
    site.bucket.put(f"{STATE}.seen", "nonsense")
    assert the_one(site, "events' memory", EVENTS_PREFIX="tap-siem")[0] == "wrong"
