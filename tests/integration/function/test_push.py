"""A Pub/Sub subscription that pushes to the function itself, as Terraform makes it, without Eventarc."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
import urllib3

from tap_forensics.sandbox.cloudevents import FunctionServer
from tests.integration.function.conftest import Deployment, messages, outcomes

# A function without an event trigger is deployed as one for HTTP.
HTTP = {"FUNCTION_SIGNATURE_TYPE": "http"}


def push(server: FunctionServer, message: dict[str, Any]) -> int:
    """https://cloud.google.com/pubsub/docs/push#receive_push"""
    both_spellings = {"messageId": "136969346945", "message_id": "136969346945"}
    published = {"publishTime": "2026-11-21T21:00:00.12Z", "publish_time": "2026-11-21T21:00:00.12Z"}
    body = {
        "message": message | both_spellings | published,
        "subscription": "projects/demo/subscriptions/tap-forensics-collector-trigger",
        "deliveryAttempt": 1,
    }
    headers = {"Content-Type": "application/json", "Authorization": "Bearer checked.by.CloudRun"}
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        return pool.request("POST", f"{server.url}/", body=json.dumps(body), headers=headers).status


def payload(text: str) -> dict[str, Any]:
    return {"data": b64encode(text.encode()).decode()}


def test_a_pushed_message_starts_a_run(deployment: Deployment) -> None:
    with deployment.serving(deployment.env(**HTTP)) as function:
        assert push(function, payload("{}")) == 200
    assert deployment.delivered() == deployment.expected()
    assert outcomes(function) == ["complete"]


def test_a_pushed_message_that_fails_is_delivered_again(deployment: Deployment) -> None:
    with deployment.serving(deployment.env(**HTTP)) as function:
        deployment.tap.secret = "renewed elsewhere"  # noqa: S105 (of the stand-in)
        assert push(function, payload("{}")) == 500
    assert outcomes(function) == ["failed"]


@pytest.mark.parametrize("text", ['{"tenant": "nobody"}', '{"tenant": "../acme"}'])
def test_the_tenant_of_a_pushed_message_is_checked_as_any(deployment: Deployment, text: str) -> None:
    with deployment.serving(deployment.env(**HTTP)) as function:
        assert push(function, payload(text)) == 200
    assert [message.split(" ")[0] for message in messages(function, "ERROR")] == ["tenant"]
