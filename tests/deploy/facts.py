"""facts.json, and the same facts as they are in the requests of gcloud."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.deploy.google_cloud import PROJECT, Call

FACTS = json.loads(Path(__file__).with_name("facts.json").read_text(encoding="utf-8"))


def last(calls: list[Call], path: str) -> Any:
    """The body of the last request that changed the resource at this path."""
    found = [call.body for call in calls if call.changes() and call.path.endswith(path)]
    assert found, path
    return found[-1]


def roles(policy: dict[str, Any]) -> list[str]:
    """`role who condition`, with the account's name alone where it is the project's or Google's own."""
    return sorted(
        f"{binding['role']} {_short(member)} {binding.get('condition', {}).get('expression', '')}".rstrip()
        for binding in policy.get("policy", policy)["bindings"]
        for member in binding["members"]
    )


def _short(member: str) -> str:
    who, domain = member.removeprefix("serviceAccount:").split("@")
    if domain == "demo-proj.iam.gserviceaccount.com":
        return who
    return domain.split(".")[0] if domain.startswith("gcp-sa") else f"{who}@{domain}"


def function_facts(function: dict[str, Any]) -> dict[str, Any]:
    build, service = function["buildConfig"], function["serviceConfig"]
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
        "runs_as": service["serviceAccountEmail"].split("@")[0],
    }


def trigger_facts(trigger: dict[str, Any]) -> dict[str, Any]:
    return {
        "event_type": trigger["eventType"],
        "retry_policy": trigger["retryPolicy"],
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
