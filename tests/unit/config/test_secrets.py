"""Credentials, mounted or not, and addresses that may hold them: taken as they are, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tap_forensics.config.settings import load_settings
from tests.support.settings import PRINCIPAL, REQUIRED, SECRET, make_settings
from tests.support.settings_faults import fault_of, faults_of, mounted, secret_of


@pytest.mark.parametrize(
    "given",
    ["http://proxy.example.com:3128", "https://proxy.example.com", "http://user:pw@proxy.example.com:1"],
)
def test_a_proxy_is_taken_as_it_is(given: str) -> None:
    assert make_settings(HTTPS_PROXY=given).tap.https_proxy == given


def test_a_proxy_without_a_scheme_speaks_http() -> None:
    assert (
        make_settings(HTTPS_PROXY="proxy.example.com:3128").tap.https_proxy == "http://proxy.example.com:3128"
    )


@pytest.mark.parametrize(
    "given", ["socks5://proxy.example.com", "http://", "http://proxy.example.com:0", "http://[proxy"]
)
def test_what_is_no_http_proxy_is_refused_without_being_shown(given: str) -> None:
    assert fault_of(HTTPS_PROXY=given).startswith(
        "HTTPS_PROXY=(not shown) is not allowed: give the address of"
    )


@pytest.mark.parametrize(
    "given", ["http://user:hunter22@pro xy:3128", "http://%zz:3128", "http://proxy.example.com\x7f"]
)
def test_a_proxy_that_no_connection_could_be_made_to_is_refused(given: str) -> None:
    assert fault_of(HTTPS_PROXY=given).startswith("HTTPS_PROXY=(not shown) is not allowed")


def test_the_lower_case_names_of_the_proxy_variables_are_known() -> None:
    settings = make_settings(https_proxy="http://one.example.com", no_proxy="two.example.com")
    assert (settings.tap.https_proxy, settings.tap.no_proxy) == ("http://one.example.com", "two.example.com")


def test_the_upper_case_name_of_a_proxy_variable_comes_first() -> None:
    settings = make_settings(HTTPS_PROXY="http://one.example.com", https_proxy="http://two.example.com")
    assert settings.tap.https_proxy == "http://one.example.com"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("TAP_SECRET", "two\nlines"), ("TAP_PRINCIPAL", "one:two"), ("TAP_PRINCIPAL", "bell\x07")],
)
def test_a_wrong_credential_is_named_and_not_shown(name: str, wrong: str) -> None:
    fault = fault_of(**{name: wrong})
    assert fault.startswith(f"{name}=(not shown) is not allowed: give ")
    assert wrong not in fault


@pytest.mark.parametrize("password", ["hunter22", "hun@ter22", "hun/ter22", "hun ter22", "//hun@ter22"])
def test_a_password_in_an_address_is_not_shown(password: str) -> None:
    fault = fault_of(TAP_API_BASE=f"https://user:{password}@tap.example.com")
    assert "hun" not in fault
    assert "ter22" not in fault


def test_settings_do_not_show_credentials_when_they_are_printed() -> None:
    settings = make_settings(HTTPS_PROXY="http://user:hunter22@proxy.example.com")
    assert not any(word in repr(settings) for word in (PRINCIPAL, SECRET, "hunter22"))


def test_a_mounted_secret_is_taken_without_its_line_end(tmp_path: Path) -> None:
    assert secret_of(mounted(tmp_path, b"mounted-secret\r\n")) == "mounted-secret"


def test_a_mounted_secret_is_read_anew_each_time(tmp_path: Path) -> None:
    environ = mounted(tmp_path, b"first\n")
    assert secret_of(environ) == "first"
    assert secret_of(mounted(tmp_path, b"second\n")) == "second"


def test_both_credentials_may_be_mounted(tmp_path: Path) -> None:
    environ = mounted(tmp_path, b"x") | {"TAP_PRINCIPAL_FILE": str(tmp_path / "secret")}
    del environ["TAP_PRINCIPAL"]
    assert load_settings(environ).tap.principal == "x"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "cannot be read (not UTF-8 text)")],
)
def test_a_mounted_secret_without_text_is_the_one_fault(tmp_path: Path, content: bytes, says: str) -> None:
    faults = faults_of(mounted(tmp_path, content))
    assert len(faults) == 1
    assert says in faults[0]
    assert faults[0].startswith("TAP_SECRET_FILE=")


def test_a_missing_mounted_secret_is_the_one_fault(tmp_path: Path) -> None:
    environ = mounted(tmp_path, b"x")
    (tmp_path / "secret").unlink()
    faults = faults_of(environ)
    assert len(faults) == 1
    assert "cannot be read (No such file or directory): check the mounted secret" in faults[0]


def test_a_folder_in_place_of_a_mounted_secret_is_the_one_fault(tmp_path: Path) -> None:
    faults = faults_of(mounted(tmp_path, b"x") | {"TAP_SECRET_FILE": str(tmp_path)})
    assert len(faults) == 1
    assert "cannot be read" in faults[0]


def test_a_secret_given_twice_is_the_one_fault(tmp_path: Path) -> None:
    faults = faults_of(mounted(tmp_path, b"x") | REQUIRED)
    assert faults == ["TAP_SECRET and TAP_SECRET_FILE are both set: remove one"]


def test_a_mounted_secret_of_several_lines_is_refused_and_not_shown(tmp_path: Path) -> None:
    faults = faults_of(mounted(tmp_path, b"hunter22\nhunter33\n"))
    assert faults == [
        "TAP_SECRET=(not shown) is not allowed: give one line of text without control characters"
    ]


def test_a_secret_given_where_its_path_belongs_is_not_shown() -> None:
    environ = {
        "GCS_BUCKET": "demo-bucket",
        "TAP_PRINCIPAL": PRINCIPAL,
        "TAP_SECRET_FILE": "0123456789abcdef" * 4,
    }
    assert "0123456789abcdef" not in "".join(faults_of(environ))
