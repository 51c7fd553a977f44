from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tap_forensics.config.settings import Settings, load_settings
from tap_forensics.config.state_location import StateLocation, state_location
from tap_forensics.config.tenants import checked_name, load_tenant, requested_tenant
from tap_forensics.errors import InvalidCredentials, InvalidSettings
from tests.support.loopback import Answering, ConnectProxy, serving
from tests.support.settings import REQUIRED
from tests.unit.conftest import connected
from tests.unit.tap.test_connection import BASE, HOST, authority, tls_for

__all__ = ["authority"]  # a fixture

SECRET = "sesame-0192837465"  # noqa: S105 (of no service)
CREDENTIALS = {"principal": "of-acme", "secret": SECRET}


def event(body: bytes) -> dict[str, Any]:
    return {"message": {"data": base64.b64encode(body).decode(), "messageId": "1"}}


def requested(data: Any) -> str | None:
    return requested_tenant(data, {"TENANTS_DIR": "/tenants"})


def fault_of(*given: Any, load: Any = requested) -> str:
    with pytest.raises(InvalidSettings) as caught:
        load(*given)
    (fault,) = caught.value.faults
    return fault


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """One tenant, acme, and no credentials of a single one."""
    (tmp_path / "acme").mkdir()
    mount(tmp_path, json.dumps(CREDENTIALS))
    return {"GCS_BUCKET": "demo-bucket", "TENANTS_DIR": str(tmp_path)}


def mount(folder: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    (folder / "acme" / "credentials.json").write_bytes(data)


def acme(environ: dict[str, str], **variables: str) -> Settings:
    return load_tenant(environ | variables, "acme")


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"message": {}},
        {"message": {"data": None, "attributes": {"a": "b"}}},
        *map(event, (b"", b" \n", b"{}", b" { } ")),
    ],
)
def test_a_message_that_names_nobody_is_for_the_single_tenant(data: Any) -> None:
    assert requested(data) is None
    assert requested_tenant(data, {}) is None


@pytest.mark.parametrize("name", ["acme", "a", "0", "a-b-", "7" * 63])
def test_a_message_may_name_a_tenant_by_a_plain_label(name: str) -> None:
    assert requested(event(json.dumps({"tenant": name}).encode())) == name


@pytest.mark.parametrize(
    "name",
    ["", "../acme", "a/b", "acme.", "Acme", "-acme", "a" * 64, "acme\n", "acme\x00", "\u0661", "ácme", "a_b"],
)
def test_a_name_that_is_no_plain_label_is_refused_by_name(name: str) -> None:
    assert repr(name)[1:-1][:60] in fault_of(event(json.dumps({"tenant": name}).encode()))
    assert "is refused" in fault_of(name, load=checked_name)


def test_a_refused_name_is_shown_cut_and_harmless() -> None:
    fault = fault_of(event(json.dumps({"tenant": "\x1b[31m\u202e" + "x" * 9999}).encode()))
    assert fault.startswith("tenant '\\x1b[31m\\u202exxx")
    assert len(fault) < 300


OTHERS = [
    *(b"go", b"[]", b"7", b'"acme"', b"[" * 99_999, b"\xff{}", b'{"tenant":"acme"} {}'),
    *(b'{"tenant":null}', b'{"tenant":7}', b'{"tenant":["acme"]}', b'{"Tenant":"acme"}'),
    b'{"tenant":"acme","bucket":"other"}',
]


@pytest.mark.parametrize("body", OTHERS)
def test_any_other_message_is_refused_with_its_text(body: bytes) -> None:
    fault = fault_of(event(body))
    assert f"'{body.decode(errors='replace')[:80]}" in fault
    assert "give {}" in fault
    assert len(fault) < 300


@pytest.mark.parametrize("data", [*map(event, [b"go", b"[]", b"7", b"\xff{}", b'{"force":true}']), "text", 7])
def test_without_tenants_dir_any_message_that_speaks_of_none_means_run(data: Any) -> None:
    assert requested_tenant(data, {}) is None
    assert fault_of(data)


@pytest.mark.parametrize("body", [b'{"tenant":7}', b'{"Tenant":"acme"}', b'{"tenant":"../acme"}'])
def test_without_tenants_dir_a_message_that_speaks_of_a_tenant_is_never_run_for_another(body: bytes) -> None:
    with pytest.raises(InvalidSettings):
        requested_tenant(event(body), {"TENANTS_DIR": " "})


@pytest.mark.parametrize("data", ["text", b"bytes", 7, {"message": 7}, {"message": {"data": "not Base64"}}])
def test_an_event_that_is_none_of_pub_subs_is_refused(data: Any) -> None:
    assert "(not from Pub/Sub) is refused" in fault_of(data)


def test_a_tenant_has_credentials_prefixes_and_a_state_of_its_own(environ: dict[str, str]) -> None:
    found = acme(environ | REQUIRED, EVENTS_PREFIX="tap-siem")
    assert (found.tenant, found.tap.principal, found.tap.secret) == ("acme", "of-acme", SECRET)
    assert (found.bucket.prefix, found.events.prefix) == ("tap-forensics/acme", "tap-siem/acme")
    assert state_location(found) == StateLocation("state/tap-forensics/acme/state.json", None)
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("state/tap-forensics/state.json", "state/tap-forensics/acme/state.json"),
        ("tap-forensics/state.json", "state/tap-forensics/acme/state.json"),
        ("tap-forensics/of/another/state.json", "state/tap-forensics/of/another/acme/state.json"),
        ("tap-siem/state.json", "state/tap-siem/acme/state.json"),
        ("state.json", "acme/state.json"),
    ],
)
def test_the_state_lies_in_a_folder_of_the_tenant_s_name_and_below_no_feed(
    given: str, made: str, environ: dict[str, str]
) -> None:
    found = acme(environ, STATE_KEY=given, EVENTS_PREFIX="tap-siem")
    assert state_location(found) == StateLocation(made, None)


def test_everything_else_is_the_function_s_and_no_tenant_is_as_ever(environ: dict[str, str]) -> None:
    assert acme(environ, MAX_THREATS="7").forensics.max_threats == 7
    assert load_tenant(REQUIRED | {"TENANTS_DIR": "/nowhere"}, None) == load_settings(REQUIRED)
    missing = fault_of(environ, None, load=load_tenant)
    assert missing.startswith("Error: Missing required environment variables: TAP_PRINCIPAL, TAP_SECRET")


def test_the_file_is_read_anew_each_time(environ: dict[str, str], tmp_path: Path) -> None:
    assert acme(environ).tap.secret == SECRET
    mount(tmp_path, b'\n{"principal": " p ", "secret": "renewed\\n", "made": "by hand"}\n')
    assert (acme(environ).tap.principal, acme(environ).tap.secret) == ("p", "renewed")


def test_a_tenant_without_a_file_is_unknown(environ: dict[str, str]) -> None:
    expected = "tenant 'zeta' is unknown: there is no TENANTS_DIR/zeta/credentials.json"
    assert fault_of(environ, "zeta", load=load_tenant) == expected
    (Path(environ["TENANTS_DIR"]) / "zeta").write_text("a file", encoding="utf-8")
    assert fault_of(environ, "zeta", load=load_tenant) == expected


def test_no_tenant_is_served_where_no_folder_is_named(environ: dict[str, str]) -> None:
    for unset in (REQUIRED, environ | {"TENANTS_DIR": " "}):
        assert fault_of(unset, "acme", load=load_tenant) == (
            "tenant 'acme' was requested, but TENANTS_DIR is not set"
        )


@pytest.mark.parametrize("name", ["../acme", "", "acme/../acme", "ACME"])
def test_no_path_is_made_from_a_name_that_was_not_checked(name: str, environ: dict[str, str]) -> None:
    assert "is refused" in fault_of(environ, name, load=load_tenant)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b" \n", "is empty: add a version"),
        (SECRET, "is not valid: give"),
        (f'"{SECRET}"', "is not valid: give"),
        (f'["{SECRET}"]', "is not valid: give"),
        (f'{{"secret": "{SECRET}"}}', "is not valid: give"),
        (f'{{"principal": null, "secret": "{SECRET}"}}', "is not valid: give"),
        (f'{{"principal": "p", "secret": ["{SECRET}"]}}', "is not valid: give"),
        (f'{{"principal": "p", "secret": "{SECRET}"', "is not valid: give"),
        (f'{{"principal": "p", "secret": "{SECRET}\\u0007"}}', "secret in TENANTS_DIR/acme"),
        (f'{{"principal": "{SECRET}:", "secret": "s"}}', "principal in TENANTS_DIR/acme"),
        (f'{{"principal": "{SECRET}", "secret": " "}}', "secret in TENANTS_DIR/acme"),
        (SECRET.encode() + b"\xff", "is not valid: give"),
        (b'{"principal": "p", "secret": "' + SECRET.encode() + b'\xff"}', "is not valid: give"),
    ],
)
def test_a_wrong_file_is_named_and_nothing_of_it_is_shown(
    content: str | bytes, said: str, environ: dict[str, str], tmp_path: Path
) -> None:
    mount(tmp_path, content)
    fault = fault_of(environ, "acme", load=load_tenant)
    assert said in fault
    assert "TENANTS_DIR/acme/credentials.json" in fault
    assert SECRET not in fault
    assert SECRET[:8] not in fault


@pytest.mark.parametrize("content", ["", "{", '{"principal": "p", "secret": " "}'])
def test_a_fault_of_the_credentials_is_an_error_of_its_own(
    content: str, environ: dict[str, str], tmp_path: Path
) -> None:
    """An alert is raised for it, but not for a tenant that any message may invent."""
    mount(tmp_path, content)
    with pytest.raises(InvalidCredentials):
        acme(environ)
    with pytest.raises(InvalidSettings) as unknown:
        load_tenant(environ, "nobody")
    assert type(unknown.value) is InvalidSettings


def test_both_fields_that_are_wrong_are_named(environ: dict[str, str], tmp_path: Path) -> None:
    mount(tmp_path, '{"principal": "a:b", "secret": ""}')
    with pytest.raises(InvalidSettings) as caught:
        acme(environ)
    assert [fault.split()[0] for fault in caught.value.faults] == ["principal", "secret"]


def test_a_file_that_cannot_be_read_is_named_with_the_reason(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "acme" / "credentials.json").unlink()
    (tmp_path / "acme" / "credentials.json").mkdir()
    fault = fault_of(environ, "acme", load=load_tenant)
    assert fault == (
        "TENANTS_DIR/acme/credentials.json cannot be read (Is a directory): check the mounted secret"
    )


def test_shared_variables_that_are_wrong_are_all_named_and_the_single_tenant_s_credentials_are_not(
    environ: dict[str, str],
) -> None:
    wrong = {"MAX_THREATS": "many", "GCS_PREFIX": "a//b", "TAP_SECRET_FILE": "/nowhere", "TAP_PRINCIPAL": ":"}
    with pytest.raises(InvalidSettings) as caught:
        acme(environ, **wrong)
    assert [fault.partition("=")[0] for fault in caught.value.faults] == ["GCS_PREFIX", "MAX_THREATS"]


def test_tenants_without_a_folder_to_lie_in_are_refused(environ: dict[str, str]) -> None:
    assert fault_of(environ | {"GCS_PREFIX": ""}, "acme", load=load_tenant).startswith("GCS_PREFIX is empty")


def test_one_tunnel_of_a_proxy_carries_one_tenant_s_credentials_only(
    environ: dict[str, str], authority: Any, tmp_path: Path
) -> None:
    apis: list[Answering] = []

    def each_connection(connection: Any) -> None:
        apis.append(Answering())
        apis[-1](connection)

    with serving(each_connection, tls_for(authority, HOST)) as origin:
        proxy = ConnectProxy(origin)
        with serving(proxy) as port:
            for name in ("one", "two", "three"):
                mount(tmp_path, json.dumps({"principal": name, "secret": "s"}))
                found = acme(environ, HTTPS_PROXY=f"http://user:word@127.0.0.1:{port}")
                with connected(
                    BASE,
                    HTTPS_PROXY=found.tap.https_proxy or "",
                    TAP_PRINCIPAL=found.tap.principal,
                    TAP_SECRET=found.tap.secret,
                ) as tap:
                    tap.forensics("t")
                    tap.forensics("u")
    sent = [{line for line in "".join(api.heads).split("\r\n") if "uthorization" in line} for api in apis]
    expected = [base64.b64encode(f"{name}:s".encode()).decode() for name in ("one", "two", "three")]
    assert sent == [{f"Authorization: Basic {token}"} for token in expected]
    assert len(proxy.heads) == 3
