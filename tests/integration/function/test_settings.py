"""Wrong settings: found before anything is called, acknowledged, and no reason not to start."""

from __future__ import annotations

import pytest

from tests.integration.function.conftest import SECRET, Deployment, messages, outcomes
from tests.support.kill_points.gatekeeper import Gatekeeper

REQUIRED = ("GCS_BUCKET", "TAP_PRINCIPAL", "TAP_SECRET")

HOSTILE = {
    "GCS_BUCKET": "gs://not/a bucket",
    "GCS_PREFIX": "a//b",
    "STATE_KEY": "ends/with/",
    "TAP_API_BASE": "ftp://user:open-sesame@example.com",
    "LOOKBACK_HOURS": "-1",
    "MAX_THREATS": "many",
    "OVERLAP_MINUTES": "1e9",
    "END_LAG_SECONDS": "60.5",
    "DEDUP_HOURS": "0x18",
    "CAMPAIGN_REPORTS": "twice",
    "RECORD_SHAPE": "{}",
    "FETCH_CONCURRENCY": "0",
    "RUN_BUDGET_SECONDS": "\u0664\u0668\u0660",
    "LEASE_SECONDS": "9" * 5000,
    "TAP_SIEM_DAILY_LIMIT": "'; DROP TABLE",
    "TAP_FORENSICS_DAILY_LIMIT": "None",
    "HTTPS_PROXY": "http://user:open-sesame@:0",
    "STORAGE_EMULATOR_HOST": "nowhere to be found",
    "GOOGLE_CLOUD_PROJECT": "\n",
    "GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent/key.json",
}
CHECKED = [name for name in HOSTILE if not name.startswith("GOOGLE_")]


def test_settings_that_are_missing_are_named_in_one_error_and_the_event_is_acknowledged(
    deployment: Deployment,
) -> None:
    env = {name: value for name, value in deployment.env().items() if name not in REQUIRED}
    with deployment.serving(env) as function:
        assert deployment.post(function)[0] == 200
    (error,) = messages(function, "ERROR")
    assert error.startswith("Error: Missing required environment variables")
    assert all(name in error for name in REQUIRED)
    assert not deployment.tap.calls
    assert not deployment.bucket.names()


def test_one_setting_that_is_missing_is_named_alone_and_nothing_is_called(deployment: Deployment) -> None:
    with Gatekeeper(deployment.bucket.url, deployment.tap.url) as gate:
        env = deployment.env(STORAGE_EMULATOR_HOST=gate.url, TAP_API_BASE=gate.url)
        del env["TAP_SECRET"]
        with deployment.serving(env) as function:
            assert deployment.post(function)[0] == 200
        assert not gate.journal
    (error,) = messages(function, "ERROR")
    assert "TAP_SECRET" in error
    assert not [name for name in ("GCS_BUCKET", "TAP_PRINCIPAL") if name in error]


def test_a_hostile_environment_keeps_no_server_from_starting_and_every_fault_is_named_at_once(
    deployment: Deployment,
) -> None:
    with deployment.serving(deployment.env() | HOSTILE) as function:
        assert deployment.post(function)[0] == 200
    (error,) = messages(function, "ERROR")
    assert [name for name in CHECKED if f"{name}=" not in error] == []
    assert "sesame" not in error
    assert "\n" not in error


def test_a_secret_that_is_not_allowed_is_not_shown(deployment: Deployment) -> None:
    with deployment.serving(TAP_SECRET=f"{SECRET}\x07", TAP_PRINCIPAL="a:b") as function:
        assert deployment.post(function)[0] == 200
    (error,) = messages(function, "ERROR")
    assert "TAP_SECRET=(not shown)" in error
    assert "TAP_PRINCIPAL=(not shown)" in error


@pytest.mark.parametrize(
    "address", ["nowhere to be found", "http://storage.example.com", "http://192.0.2.1:80"]
)
def test_a_storage_emulator_elsewhere_is_refused_by_name_and_nothing_is_called(
    address: str, deployment: Deployment
) -> None:
    with deployment.serving(STORAGE_EMULATOR_HOST=address) as function:
        assert deployment.post(function)[0] == 200
    (error,) = messages(function, "ERROR")
    assert error.startswith(f"STORAGE_EMULATOR_HOST='{address}' is not allowed on Cloud Run: remove it")
    assert not deployment.tap.calls
    assert not deployment.bucket.names()


def test_a_storage_emulator_that_is_not_there_fails_the_run_with_a_sentence(deployment: Deployment) -> None:
    with deployment.serving(STORAGE_EMULATOR_HOST="http://127.0.0.1:1", RUN_BUDGET_SECONDS="5") as function:
        assert deployment.post(function)[0] == 500
    assert outcomes(function) == ["failed"]
    assert len(messages(function, "ERROR")) == 2
    assert not deployment.tap.calls
