"""quickstart.sh with the real gcloud, against a server that records its requests: the facts of facts.json."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tap_forensics.sandbox.processes import end_group, free_port, wait_until_listening
from tests.support.tools import CHECKOUT, beside_the_checkout, command

FACTS = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))
REGION = "us-central1"
PROJECT = "projects/demo-proj"
PROXY = "tap-forensics-collector-proxy"
SUBSCRIPTION = f"{PROJECT}/subscriptions/eventarc-demo-sub"
# One gcloud command takes about a second, a run of the script some thirty.
pytestmark = pytest.mark.timeout(600)


@dataclass
class Call:
    """One request of gcloud; `path` is without the query."""

    method: str
    path: str
    body: Any

    def changes(self) -> bool:
        # Asking for policies and operations is POST too; and the recorder lists one service as enabled
        # whatever was enabled before.
        asks = self.method == "GET" or self.path.endswith((":getIamPolicy", ":batchEnable"))
        return not asks


@dataclass
class Cloud:
    """The recording server, and the environment that makes gcloud talk to it."""

    port: int
    log: Path
    uploads: Path
    env: dict[str, str]
    seen: int = 0
    said: list[str] = field(default_factory=list)

    def quickstart(self, *options: str) -> list[Call]:
        """One run of the script; gives what gcloud asked for meanwhile."""
        words = [str(CHECKOUT / "deploy" / "quickstart.sh"), "--bucket", FACTS["bucket"]["name"], *options]
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, check=False)  # noqa: S603
        self.said.append(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = self.log.read_text(encoding="utf-8").splitlines()
        calls = [json.loads(line) for line in lines[self.seen :]]
        self.seen = len(lines)
        return [Call(call["m"], call["url"].split("?")[0], call["body"]) for call in calls]

    def already_has(self, method: str, path: str, body: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{self.port}/{path}"
        assert urllib3.request(method, url, json=body, retries=False).status == 200
        self.seen += 1


# What the script needs of the recorder beyond what it does: a newer runtime, updates of a subscription,
# uploads to look into, and that what is deleted is gone.
_MORE_OF_THE_RECORDER = {
    '"python312","displayName"': '"python313","displayName"',
    "store.setdefault(k,{}).update(body or {}); return": (
        'store.setdefault(k,{}).update((body or {}).get("subscription",body or {})); return'
    ),
    'if svc in ("signed-upload",): path=u.path': (
        'if svc in ("signed-upload",): path=u.path; open(sys.argv[2]+".zip","wb").write(raw)'
    ),
    'if m=="GET": return 200,f': (
        'if m=="DELETE": store.pop("f:"+nm); return op("projects/demo-proj/locations/x/operations/op3",{})\n'
        '            if m=="GET": return 200,f'
    ),
    'if m=="DELETE": store.pop(k,None)': (
        'if m=="DELETE": store.pop("sa:"+p.rsplit("/",1)[1],None); store.pop(k,None)'
    ),
}


def as_needed_here(recorder: str) -> str:
    for found, wanted in _MORE_OF_THE_RECORDER.items():
        assert found in recorder
        recorder = recorder.replace(found, wanted)
    return recorder


@contextmanager
def recording(folder: Path) -> Iterator[Cloud]:
    gcloud = command("gcloud")
    tools = beside_the_checkout("TAP_GCLOUD_RECORDER", "gcloud")
    recorder, log, port = folder / "recorder.py", folder / "log.jsonl", free_port()
    text = as_needed_here((tools / "recorder.py").read_text(encoding="utf-8"))
    recorder.write_text(text, encoding="utf-8")
    path = f"{Path(gcloud).parent}:{Path(sys.executable).parent}:{os.defpath}"
    sourced = subprocess.run(  # noqa: S603 (the recorder's own environment, printed)
        ["/bin/bash", "-c", f'. "{tools}/env" {port} && env -0'],
        env={"PATH": path, "HOME": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    env = dict(pair.split("=", 1) for pair in sourced.stdout.split("\0") if "=" in pair)
    server = subprocess.Popen(  # noqa: S603 (the recorder, on loopback)
        [sys.executable, str(recorder), str(port), str(log)], start_new_session=True
    )
    try:
        wait_until_listening(server, port, within_seconds=10)
        cloud = Cloud(port, log, Path(f"{log}.zip"), env)
        made_by_google(cloud)
        yield cloud
    finally:
        end_group(server)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with recording(tmp_path) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, list[Call]]]:
    """A cloud after the script, and what the script asked for."""
    with recording(tmp_path_factory.mktemp("installed")) as cloud:
        yield cloud, cloud.quickstart("--feed-service-account", "feed@example.com")


def made_by_google(cloud: Cloud) -> None:
    """What deploying a function makes on Google's side: the trigger and its subscription."""
    trigger = {"name": f"{PROJECT}/locations/{REGION}/triggers/t-1"}
    trigger["transport"] = {"pubsub": {"subscription": SUBSCRIPTION}}  # type: ignore[assignment]
    cloud.already_has("POST", f"eventarc/v1/{PROJECT}/locations/{REGION}/triggers", trigger)
    cloud.already_has("PUT", f"pubsub/v1/{SUBSCRIPTION}", {"name": SUBSCRIPTION})


def last(calls: list[Call], path: str) -> Any:
    """The body of the last request that changed what lies at this path."""
    found = [call.body for call in calls if call.changes() and call.path.endswith(path)]
    assert found, path
    return found[-1]


def roles(policy: dict[str, Any]) -> list[str]:
    """`role who`, with the account's name alone where it is the project's or Google's own."""
    given = []
    for binding in policy.get("policy", policy)["bindings"]:
        for member in binding["members"]:
            who, domain = member.removeprefix("serviceAccount:").split("@")
            if domain == "demo-proj.iam.gserviceaccount.com":
                given.append(f"{binding['role']} {who}")
            elif domain.startswith("gcp-sa"):
                given.append(f"{binding['role']} {domain.split('.')[0]}")
            else:
                given.append(f"{binding['role']} {who}@{domain}")
    return sorted(given)


def function_facts(function: dict[str, Any]) -> dict[str, Any]:
    build, service, trigger = function["buildConfig"], function["serviceConfig"], function["eventTrigger"]
    return {
        "name": function["name"].rsplit("/", 1)[1],
        "runtime": build["runtime"],
        "entry_point": build["entryPoint"],
        "timeout_seconds": service["timeoutSeconds"],
        "memory": service["availableMemory"],
        "cpu": service["availableCpu"],
        "min_instances": service["minInstanceCount"],
        "max_instances": service["maxInstanceCount"],
        "concurrency": service["maxInstanceRequestConcurrency"],
        "ingress": service["ingressSettings"],
        "event_type": trigger["eventType"],
        "retry_policy": trigger["retryPolicy"],
        "runs_as": service["serviceAccountEmail"].split("@")[0],
        "trigger_calls_as": trigger["serviceAccountEmail"].split("@")[0],
    }


def mounted(service: dict[str, Any]) -> dict[str, str]:
    return {
        f"{volume['mountPath']}/{version['path']}": f"{volume['secret']}:{version['version']}"
        for volume in service["secretVolumes"]
        for version in volume["versions"]
    }


def all_roles(calls: list[Call]) -> dict[str, list[str]]:
    given = {
        "bucket": last(calls, f"/b/{FACTS['bucket']['name']}/iam"),
        "service": last(calls, f"/services/{FACTS['function']['name']}:setIamPolicy"),
        "dead_letter_topic": last(calls, f"/topics/{FACTS['dead_letter']['topic']}:setIamPolicy"),
    }
    for secret in (place.split(":")[0] for place in FACTS["mounted"].values()):
        given[secret] = last(calls, f"/secrets/{secret}:setIamPolicy")
    return {thing: roles(policy) for thing, policy in given.items()}


def bucket_facts(created: dict[str, Any], updated: dict[str, Any]) -> dict[str, Any]:
    (rule,) = updated["lifecycle"]["rule"]
    assert rule["action"] == {"type": "Delete"}
    assert list(rule["condition"]) == ["daysSinceNoncurrentTime"]
    return {
        "name": created["name"],
        "location": created["location"],
        "uniform_access": updated["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"],
        "public_access_prevention": updated["iamConfiguration"]["publicAccessPrevention"],
        "versioning": updated["versioning"]["enabled"],
        "replaced_versions_kept_days": rule["condition"]["daysSinceNoncurrentTime"],
    }


def schedule_facts(job: dict[str, Any]) -> dict[str, Any]:
    assert job["pubsubTarget"]["topicName"] == f"{PROJECT}/topics/{FACTS['topic']}"
    return {
        "name": job["name"].rsplit("/", 1)[1],
        "cron": job["schedule"],
        "time_zone": job["timeZone"],
        "message": base64.b64decode(job["pubsubTarget"]["data"]).decode(),
    }


def test_it_makes_what_the_facts_say(installed: tuple[Cloud, list[Call]]) -> None:
    _, calls = installed
    function = last(calls, "/functions")
    assert function_facts(function) == FACTS["function"]
    assert function["eventTrigger"]["pubsubTopic"] == f"{PROJECT}/topics/{FACTS['topic']}"
    assert function["serviceConfig"]["environmentVariables"] == FACTS["environment"]
    assert mounted(function["serviceConfig"]) == FACTS["mounted"]
    created, updated = last(calls, "/storage/v1/b"), last(calls, f"/b/{FACTS['bucket']['name']}")
    assert bucket_facts(created, updated) == FACTS["bucket"]
    assert schedule_facts(last(calls, "/jobs")) == FACTS["schedule"]
    enabled = [call.body["serviceIds"] for call in calls if call.path.endswith(":batchEnable")]
    assert sorted([*enabled[0], "run.googleapis.com"]) == FACTS["services"]


def test_it_gives_rights_on_single_things_only(installed: tuple[Cloud, list[Call]]) -> None:
    _, calls = installed
    assert all_roles(calls) == FACTS["roles"]
    assert roles(last(calls, f"{SUBSCRIPTION}:setIamPolicy")) == ["roles/pubsub.subscriber gcp-sa-pubsub"]
    assert not [call for call in calls if call.path.endswith(f"{PROJECT}:setIamPolicy")]


def test_it_stores_no_secret_but_a_blank(installed: tuple[Cloud, list[Call]]) -> None:
    _, calls = installed
    versions = [call.body["payload"]["data"] for call in calls if call.path.endswith(":addVersion")]
    assert [base64.b64decode(value) for value in versions] == [b" ", b" "]


def test_events_that_go_on_failing_are_kept(installed: tuple[Cloud, list[Call]]) -> None:
    _, calls = installed
    topic = f"{PROJECT}/topics/{FACTS['dead_letter']['topic']}"
    assert last(calls, SUBSCRIPTION)["subscription"]["deadLetterPolicy"]["deadLetterTopic"] == topic
    kept = last(calls, f"/subscriptions/{FACTS['dead_letter']['subscription']}")
    assert kept["topic"] == topic
    assert kept["messageRetentionDuration"] == FACTS["dead_letter"]["retention"]


def test_it_uploads_what_is_deployed_and_nothing_else(
    installed: tuple[Cloud, list[Call]], tmp_path: Path
) -> None:
    subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, str(CHECKOUT / "deploy" / "archive.py"), str(tmp_path / "source.zip")], check=True
    )
    with zipfile.ZipFile(io.BytesIO(installed[0].uploads.read_bytes())) as uploaded:
        sent = {name: uploaded.read(name) for name in uploaded.namelist() if not name.endswith("/")}
    with zipfile.ZipFile(tmp_path / "source.zip") as archive:
        assert sent == {name: archive.read(name) for name in archive.namelist()}


def test_the_address_of_a_proxy_is_a_mounted_secret(installed: tuple[Cloud, list[Call]]) -> None:
    calls = installed[0].quickstart("--feed-service-account", "feed@example.com", "--proxy")
    assert [call.body["payload"]["data"] for call in calls if call.path.endswith(":addVersion")] == ["IA=="]
    service = last(calls, f"/functions/{FACTS['function']['name']}")["serviceConfig"]
    assert service["environmentVariables"] == FACTS["environment"] | {
        "HTTPS_PROXY_FILE": "/secrets/proxy/value"
    }
    assert mounted(service) == FACTS["mounted"] | {"/secrets/proxy/value": f"{PROXY}:latest"}
    granted = roles(last(calls, f"/secrets/{PROXY}:setIamPolicy"))
    assert granted == FACTS["roles"]["tap-forensics-collector-secret"]
    assert f"versions add {PROXY} " in installed[0].said[-1]


def test_a_second_run_changes_nothing(installed: tuple[Cloud, list[Call]]) -> None:
    again = installed[0].quickstart("--feed-service-account", "feed@example.com")
    assert [call for call in again if call.changes()] == []


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(cloud: Cloud) -> None:
    calls = cloud.quickstart("--dry-run", "--schedule", "*/15 * * * *")
    assert [call for call in calls if call.changes() or call.path.endswith(":batchEnable")] == []
    for words in ("buckets create", "functions deploy", "scheduler jobs create", "nothing was changed"):
        assert words in cloud.said[-1].lower()


def test_uninstalling_leaves_the_bucket_and_twice_is_as_good_as_once(cloud: Cloud) -> None:
    for secret in (place.split(":")[0] for place in FACTS["mounted"].values()):
        # gcloud looks through a secret's versions before it deletes it.
        cloud.already_has("PUT", f"secretmanager/v1/{PROJECT}/secrets/{secret}/versions", {"versions": []})
    cloud.quickstart()
    gone = [call.path for call in cloud.quickstart("--uninstall") if call.method == "DELETE"]
    assert not [path for path in gone if "/storage/" in path]
    assert {path.rsplit("/", 1)[1] for path in gone} >= {
        FACTS["function"]["name"],
        FACTS["topic"],
        FACTS["dead_letter"]["topic"],
        FACTS["schedule"]["name"],
        *(place.split(":")[0] for place in FACTS["mounted"].values()),
    }
    assert [call for call in cloud.quickstart("--uninstall") if call.changes()] == []


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
        ("--set", "MAX_THREATS"),
        ("--bucket",),
        ("--unknown",),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_asked(options: tuple[str, ...]) -> None:
    done = subprocess.run(  # noqa: S603 (our own script)
        [str(CHECKOUT / "deploy" / "quickstart.sh"), *options],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "quickstart: " in done.stderr
    assert "never-here" not in done.stderr
