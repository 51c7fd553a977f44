"""quickstart.sh with the real gcloud, against Google Cloud in small: it makes what facts.json says."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.facts import (
    FACTS,
    all_roles,
    bucket_facts,
    function_facts,
    last,
    mounted,
    roles,
    schedule_facts,
    trigger_facts,
)
from tests.deploy.google_cloud import PROJECT, PROJECT_ID, SUBSCRIPTION, Call, GoogleCloud
from tests.deploy.quickstart import Quickstart
from tests.support.events_lab import EVENTS
from tests.support.tools import CHECKOUT

PROXY = "tap-forensics-collector-proxy"
# One gcloud command takes about a second, a run of the script some thirty.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def quickstart(tmp_path: Path) -> Iterator[Quickstart]:
    with GoogleCloud() as cloud:
        yield Quickstart(cloud, tmp_path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Quickstart, list[Call]]]:
    """The script after its first run, and what it asked for."""
    with GoogleCloud() as cloud:
        quickstart = Quickstart(cloud, tmp_path_factory.mktemp("installed"))
        yield quickstart, quickstart.run("--feed-service-account", "feed@example.com")


def test_it_makes_what_the_facts_say(installed: tuple[Quickstart, list[Call]]) -> None:
    _, calls = installed
    function = last(calls, "/functions")
    assert function_facts(function) == FACTS["function"]
    assert trigger_facts(function["eventTrigger"]) == FACTS["quickstart_trigger"]
    assert function["eventTrigger"]["pubsubTopic"] == f"{PROJECT}/topics/{FACTS['topic']}"
    assert function["serviceConfig"]["environmentVariables"] == FACTS["environment"]
    assert mounted(function["serviceConfig"]) == FACTS["mounted"]
    created, updated = last(calls, "/storage/v1/b"), last(calls, f"/b/{FACTS['bucket']['name']}")
    assert bucket_facts(created, updated) == FACTS["bucket"]
    assert schedule_facts(last(calls, "/jobs")) == FACTS["schedule"]
    enabled = [call.body["serviceIds"] for call in calls if call.path.endswith(":batchEnable")]
    assert sorted(enabled[0]) == FACTS["services"]


def test_it_gives_rights_on_single_things_only(installed: tuple[Quickstart, list[Call]]) -> None:
    _, calls = installed
    assert all_roles(calls) == FACTS["roles"]
    assert roles(last(calls, f"{SUBSCRIPTION}:setIamPolicy")) == ["roles/pubsub.subscriber gcp-sa-pubsub"]
    assert not [call for call in calls if call.path.endswith(f"{PROJECT}:setIamPolicy")]


def test_it_stores_no_secret_but_a_blank(installed: tuple[Quickstart, list[Call]]) -> None:
    _, calls = installed
    versions = [call.body["payload"]["data"] for call in calls if call.path.endswith(":addVersion")]
    assert [base64.b64decode(value) for value in versions] == [b" ", b" "]


def test_events_that_go_on_failing_are_kept(installed: tuple[Quickstart, list[Call]]) -> None:
    _, calls = installed
    topic = f"{PROJECT}/topics/{FACTS['dead_letter']['topic']}"
    assert last(calls, SUBSCRIPTION)["subscription"]["deadLetterPolicy"]["deadLetterTopic"] == topic
    kept = last(calls, f"/subscriptions/{FACTS['dead_letter']['subscription']}")
    assert kept["topic"] == topic
    assert kept["messageRetentionDuration"] == FACTS["dead_letter"]["retention"]


def test_it_uploads_what_is_deployed_and_nothing_else(
    installed: tuple[Quickstart, list[Call]], tmp_path: Path
) -> None:
    subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, str(CHECKOUT / "deploy" / "archive.py"), str(tmp_path / "source.zip")], check=True
    )
    with zipfile.ZipFile(io.BytesIO(installed[0].cloud.upload)) as uploaded:
        sent = {name: uploaded.read(name) for name in uploaded.namelist() if not name.endswith("/")}
    with zipfile.ZipFile(tmp_path / "source.zip") as archive:
        assert sent == {name: archive.read(name) for name in archive.namelist()}


def test_a_second_run_changes_nothing(installed: tuple[Quickstart, list[Call]]) -> None:
    again = installed[0].run("--feed-service-account", "feed@example.com")
    assert [call for call in again if call.changes()] == []


def test_a_run_with_a_proxy_and_events_corrects_the_bucket_and_keeps_its_lifecycle_rules(
    installed: tuple[Quickstart, list[Call]],
) -> None:
    """The proxy's address is a mounted secret, and the folder of events has rights of its own."""
    bucket = installed[0].cloud.things[f"storage/{FACTS['bucket']['name']}"]
    rules = {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 30}}]}
    bucket |= {"lifecycle": rules, "versioning": {"enabled": False}}
    account = f"serviceAccount:{FACTS['function']['runs_as']}@{PROJECT_ID}.iam.gserviceaccount.com"
    _, policy = installed[0].cloud.policy(f"storage/{FACTS['bucket']['name']}", None)
    # As an earlier version of the script gave it.
    policy["bindings"].append({"role": "roles/storage.objectUser", "members": [account]})
    events = ("--set", f"EVENTS_PREFIX={EVENTS}")
    calls = installed[0].run("--feed-service-account", "feed@example.com", "--proxy", *events)
    given = roles(last(calls, f"/b/{FACTS['bucket']['name']}/iam"))
    assert given == sorted(FACTS["roles"]["bucket"] + FACTS["roles_for_events"])
    updated = installed[0].cloud.things[f"storage/{FACTS['bucket']['name']}"]
    assert (updated["lifecycle"], updated["versioning"]) == (rules, {"enabled": True})
    assert "its lifecycle rules stay as they are" in installed[0].output[-1]
    assert [call.body["payload"]["data"] for call in calls if call.path.endswith(":addVersion")] == ["IA=="]
    service = last(calls, f"/functions/{FACTS['function']['name']}")["serviceConfig"]
    assert service["environmentVariables"] == FACTS["environment"] | {
        "HTTPS_PROXY_FILE": "/secrets/proxy/value",
        "EVENTS_PREFIX": EVENTS,
    }
    assert mounted(service) == FACTS["mounted"] | {"/secrets/proxy/value": f"{PROXY}:latest"}
    granted = roles(last(calls, f"/secrets/{PROXY}:setIamPolicy"))
    assert granted == FACTS["roles"]["tap-forensics-collector-secret"]
    assert f"versions add {PROXY} " in installed[0].output[-1]


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(quickstart: Quickstart) -> None:
    calls = quickstart.run("--dry-run", "--schedule", "*/15 * * * *")
    assert [call for call in calls if call.changes()] == []
    for words in ("buckets create", "functions deploy", "scheduler jobs create", "nothing was changed"):
        assert words in quickstart.output[-1].lower()


def test_uninstalling_leaves_the_bucket_and_twice_is_as_good_as_once(
    installed: tuple[Quickstart, list[Call]],
) -> None:
    """The last test of what was installed."""
    quickstart, _ = installed
    gone = [call.path for call in quickstart.run("--uninstall") if call.method == "DELETE"]
    assert not [path for path in gone if "/storage/" in path]
    assert {path.rsplit("/", 1)[1] for path in gone} >= {
        FACTS["function"]["name"],
        FACTS["topic"],
        FACTS["dead_letter"]["topic"],
        FACTS["schedule"]["name"],
        *(place.split(":")[0] for place in FACTS["mounted"].values()),
    }
    assert [call for call in quickstart.run("--uninstall") if call.changes()] == []


@pytest.mark.parametrize(
    "options",
    [
        ("--set", "TAP_SECRET=never-here"),
        ("--set", "HTTPS_PROXY=http://user:never-here@proxy.example.com:3128"),
        ("--set", "https_proxy=http://proxy.example.com:3128"),
        ("--set", "STATE_KEY=tap-forensics/state.json"),
        ("--set", "GCS_PREFIX=state/tap"),
        ("--set", "GCS_PREFIX="),
        ("--set", "EVENTS_PREFIX=/state/events/"),
        ("--set", "EVENTS_PREFIX=tap//events"),
        ("--set", 'EVENTS_PREFIX=tap"events'),
        ("--set", "NO_PROXY=a|GCS_BUCKET=never-here"),
        ("--set", "TENANTS_DIR=/tenants"),
        ("--set", "MAX_THREATS"),
        ("--set", "MAX_THREAT=5"),
        ("--set", "PATH=/never-here"),
        ("--set", "=5"),
        ("--bucket",),
        ("--unknown",),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_asked(options: tuple[str, ...]) -> None:
    completed = subprocess.run(  # noqa: S603 (our own script)
        [str(CHECKOUT / "deploy" / "quickstart.sh"), *options],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 2
    assert "quickstart: " in completed.stderr
    assert "never-here" not in completed.stderr
