"""Settings that matter where the function is deployed: the proxy's mounted address, and a stray emulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tap_forensics.config.settings import load_settings
from tap_forensics.config.tenants import load_places, load_tenant
from tap_forensics.errors import InvalidSettings
from tests.support.settings import REQUIRED, make_settings

ADDRESS = "http://user:hunter22@proxy.example.com:3128"


def faults_of(**variables: str) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        make_settings(**variables)
    assert "hunter22" not in str(caught.value)
    return caught.value.faults


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "proxy"
    file.write_text(f"{ADDRESS}\n", encoding="utf-8")
    return file


def test_the_proxy_is_read_from_a_mounted_secret_anew_each_time(file: Path) -> None:
    assert make_settings(HTTPS_PROXY_FILE=str(file)).tap.https_proxy == ADDRESS
    file.write_text("proxy.example.com:1", encoding="utf-8")
    assert make_settings(HTTPS_PROXY_FILE=str(file)).tap.https_proxy == "http://proxy.example.com:1"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_a_proxy_given_twice_is_the_one_fault(file: Path, name: str) -> None:
    faults = faults_of(HTTPS_PROXY_FILE=str(file), **{name: ADDRESS})
    assert faults == ["HTTPS_PROXY and HTTPS_PROXY_FILE are both set: remove one"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "HTTPS_PROXY_FILE=(not shown) is empty: add a version to the mounted secret"),
        (" \n", "HTTPS_PROXY_FILE=(not shown) is empty: add a version to the mounted secret"),
        (
            "socks5://user:hunter22@x",
            "HTTPS_PROXY=(not shown) is not allowed: give the address of an HTTP proxy",
        ),
    ],
)
def test_a_mounted_proxy_that_is_none_is_the_one_fault(file: Path, content: str, says: str) -> None:
    file.write_text(content, encoding="utf-8")
    (fault,) = faults_of(HTTPS_PROXY_FILE=str(file))
    assert fault.startswith(says)


def test_a_mounted_proxy_that_is_missing_is_the_one_fault_and_its_path_is_not_shown() -> None:
    (fault,) = faults_of(HTTPS_PROXY_FILE="/nowhere/hunter22")
    assert fault.startswith("HTTPS_PROXY_FILE=(not shown) cannot be read")


def test_tenants_share_the_mounted_proxy(file: Path, tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "credentials.json").write_text('{"principal":"p","secret":"s"}', encoding="utf-8")
    environ = {"GCS_BUCKET": "demo-bucket", "TENANTS_DIR": str(tmp_path), "HTTPS_PROXY_FILE": str(file)}
    assert load_tenant(environ, "acme").tap.https_proxy == ADDRESS


@pytest.mark.parametrize(
    "address",
    [
        "http://storage.example.com",
        "storage.example.com:9023",
        "https://192.0.2.1",
        "http://0.0.0.0:9023",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@storage.example.com",
        "http://127.0.0.1:80@storage.example.com",
        "http://storage.example.com#127.0.0.1",
        "http://127.0.0.1\\@storage.example.com",
        "http://127.0.0.1\n",
        "file:///127.0.0.1",
        " ",
    ],
)
def test_on_cloud_run_an_emulator_elsewhere_is_the_one_fault(address: str) -> None:
    (fault,) = faults_of(K_SERVICE="collector", STORAGE_EMULATOR_HOST=address)
    assert fault.startswith("STORAGE_EMULATOR_HOST=")
    assert "is not allowed on Cloud Run: remove it" in fault
    with pytest.raises(InvalidSettings, match="STORAGE_EMULATOR_HOST"):
        load_places(REQUIRED | {"K_SERVICE": "collector", "STORAGE_EMULATOR_HOST": address}, None)


def test_a_password_in_the_emulators_address_is_not_shown() -> None:
    faults_of(K_SERVICE="collector", STORAGE_EMULATOR_HOST="http://user:hunter22@storage.example.com")


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9023",
        "http://localhost:1/",
        "https://[::1]:9",
        "localhost:9023",
        "http://127.1.2.3",
        "",
    ],
)
def test_on_cloud_run_an_emulator_on_loopback_is_allowed(address: str) -> None:
    load_settings(REQUIRED | {"K_SERVICE": "collector", "STORAGE_EMULATOR_HOST": address})


def test_elsewhere_any_emulator_is_allowed() -> None:
    make_settings(STORAGE_EMULATOR_HOST="http://storage.example.com")
