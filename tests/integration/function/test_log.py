"""What Cloud Logging gets: one JSON object a line, whatever thread it comes from."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tap_forensics.sandbox.cloudevents import FunctionServer
from tap_forensics.sandbox.faults import Fault
from tests.integration.function.conftest import SECRET, Deployment, disguises, entries, messages
from tests.support.settings import STATE

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACES = [
    pytest.param({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, id="W3C"),
    pytest.param({"X_Cloud_Trace_Context": f"{TRACE}/1311768467463790320;o=1"}, id="Google"),
]
PATIENCE_SECONDS = 20
LABELS = "logging.googleapis.com/labels"
EXECUTION = {"Function_Execution_Id": "of-this-event"}
WHERE = "logging.googleapis.com/trace"


@pytest.mark.parametrize("header", TRACES)
def test_every_line_has_its_severity_its_message_and_the_trace_of_the_event(
    header: dict[str, str], deployment: Deployment
) -> None:
    with deployment.serving(GOOGLE_CLOUD_PROJECT="demo") as function:
        deployment.post(function, **header)
    assert {entry[WHERE] for entry in entries(function)} == {f"projects/demo/traces/{TRACE}"}
    assert {entry["severity"] for entry in entries(function)} == {"INFO"}
    assert all(entry["message"] and "\n" not in entry["message"] for entry in entries(function))


def test_a_trace_header_that_is_none_costs_nothing(deployment: Deployment) -> None:
    headers = ["garbage", f"00-{TRACE[:-1]}-1-1", "0" * 4000]
    with deployment.serving() as function:
        assert [deployment.post(function, traceparent=header)[0] for header in headers] == [200, 200, 200]
    assert not [entry for entry in entries(function) if WHERE in entry]


def test_the_execution_id_stands_on_the_lines_of_the_workers_too(deployment: Deployment) -> None:
    deployment.tap.faults.add("/v2/forensics", Fault("status"))
    with deployment.serving(LOG_EXECUTION_ID="true") as function:
        deployment.post(function, **EXECUTION)
    assert "Retrying after" in " ".join(messages(function, "WARNING"))
    assert "Wrote" in " ".join(messages(function, "INFO"))
    assert not without_execution_id(function)


def test_the_execution_id_stands_on_what_is_said_about_a_lost_lease(deployment: Deployment) -> None:
    """The lease is renewed by a thread of its own, beside the run."""
    deployment.tap.latency_seconds = 2
    with (
        deployment.serving(LOG_EXECUTION_ID="true", LEASE_SECONDS="1") as function,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(deployment.post, function, **EXECUTION)
        wait_for_the_lease(deployment)
        taken = deployment.bucket.get(STATE).replace(b'"owner":"', b'"owner":"another ')
        deployment.bucket.put(STATE, taken)
        assert answer.result()[0] == 500
    assert deployment.bucket.get(STATE) == taken
    assert "was changed by another run" in " ".join(messages(function, "WARNING"))
    assert not without_execution_id(function)


def wait_for_the_lease(deployment: Deployment) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while STATE not in deployment.bucket.names():
        assert time.monotonic() < end, "no run began"
        time.sleep(0.02)


def without_execution_id(function: FunctionServer) -> list[dict[str, Any]]:
    return [entry for entry in entries(function) if entry.get(LABELS) != {"execution_id": "of-this-event"}]


def test_the_last_line_has_the_figures_of_the_run(deployment: Deployment) -> None:
    with deployment.serving() as function:
        deployment.post(function)
    stats = entries(function)[-1]["run"]
    assert stats["outcome"] == "complete"
    assert (stats["threats_fetched"], stats["threats_left"], stats["reports"]) == (6, 0, 7)
    assert stats["forensics_calls"] == len(deployment.tap.calls_to("/v2/forensics"))
    assert stats["siem_calls"] == len(deployment.tap.calls_to("/v2/siem/all"))


def test_an_api_that_repeats_the_credentials_brings_them_into_no_log_and_no_state(
    deployment: Deployment,
) -> None:
    echo = f"\x1b[31m Bad Gateway, you sent {' '.join(sorted(disguises(SECRET)))}\n".encode()
    for path, status in (("/v2/siem/all", 503), ("/v2/forensics", 400)):
        deployment.tap.faults.add(path, Fault("status", status=status, body=echo))
    with deployment.serving() as function:
        assert deployment.post(function)[0] == 200
    warnings = [
        line for line in messages(function, "WARNING") + messages(function, "ERROR") if "TAP answered" in line
    ]
    assert len(warnings) == 2
    assert all('text (under 1 KiB) with the words "bad gateway"' in line for line in warnings)
    assert deployment.bucket.get(STATE)  # what it says is looked through at the end of each test


ALERTED = [
    pytest.param({}, "AuthenticationFailed", id="refused"),
    pytest.param({"TAP_SECRET": " "}, "InvalidCredentials", id="empty"),
    pytest.param({"TAP_PRINCIPAL_FILE": "/nowhere", "TAP_PRINCIPAL": ""}, "InvalidCredentials", id="no file"),
    # Not an alert on credentials, although the line names one of their variables.
    pytest.param({"GCS_PREFIX": "TAP_SECRET//credentials.json"}, "InvalidSettings", id="a text like it"),
]


@pytest.mark.parametrize(("variables", "kind"), ALERTED)
def test_the_line_that_says_why_has_the_kind_of_error_as_a_field(
    variables: dict[str, str], kind: str, deployment: Deployment
) -> None:
    with deployment.serving(deployment.env(**variables)) as function:
        deployment.tap.secret = "renewed elsewhere"  # noqa: S105 (of the stand-in)
        deployment.post(function)
    why = next(entry for entry in entries(function) if entry["severity"] == "ERROR")
    assert why["error"] == kind
    assert [entry for entry in entries(function) if "error" in entry] == [why]
