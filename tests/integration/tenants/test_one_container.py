"""One process of the function, asked for one tenant after the other, for none, and for what is none."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tap_forensics.sandbox.cloudevents import FunctionServer, post_event
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import utc_now
from tests.support.fleet import MAIN, mount, mount_one
from tests.support.tenants_api import TenantsApi, make_tenants

LABELS = "logging.googleapis.com/labels"
REFUSALS = {
    b'{"tenant": "../acme"}': "tenant '../acme' is refused",
    b'{"tenant": "\\u001b[31mred"}': "tenant '\\x1b[31mred' is refused",
    b'{"tenant": "zeta"}': "tenant 'zeta' is unknown",
    b'{"tenant": 7}': "the message '{\"tenant\": 7}' is refused",
    b"\x00go": "the message '\\x00go' is refused",
}


@dataclass
class Answered:
    """One event: its status, whose credentials asked the API, the objects after it, and what was logged."""

    status: int
    askers: set[str | None]
    names: list[str]
    entries: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Container:
    """One server; what it logged for each event is known once it has ended."""

    server: FunctionServer
    api: TenantsApi
    bucket: FakeBucket
    mounts: Path
    answered: list[Answered] = field(default_factory=list)

    def ask(self, body: bytes) -> Answered:
        self.api.journal.clear()
        status, _ = post_event(self.server.url, body)
        askers = {asked.tenant for asked in self.api.journal}
        self.answered.append(Answered(status, askers, self.bucket.names()))
        return self.answered[-1]

    def hand_out_the_log(self) -> None:
        entries = [json.loads(line) for line in self.server.log]
        by_event = [list(group) for _, group in groupby(entries, lambda entry: entry[LABELS]["execution_id"])]
        for answered, group in zip(self.answered, by_event, strict=True):
            answered.entries = group


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def container(mounts: Path) -> Iterator[Container]:
    tenants = make_tenants(("acme", "globex", "single"), utc_now())
    mount(mounts, [tenants["acme"], tenants["globex"]])
    with TenantsApi(tenants) as api, FakeBucket("tenants") as bucket:
        env = {
            "K_SERVICE": "tap-forensics-collector",
            "LOG_EXECUTION_ID": "true",
            "GCS_BUCKET": bucket.name,
            "STORAGE_EMULATOR_HOST": bucket.url,
            "TAP_API_BASE": api.url,
            "TENANTS_DIR": str(mounts),
            "TAP_PRINCIPAL": tenants["single"].api.principal,
            "TAP_SECRET": tenants["single"].api.secret,
        }
        with FunctionServer(env, MAIN) as server:
            made = Container(server, api, bucket, mounts)
            yield made
        made.hand_out_the_log()


def test_each_run_is_its_own_tenant_s_alone(mounts: Path) -> None:
    whose = {b"{}": "", b'{"tenant":"acme"}': "acme", b"": "", b'{"tenant":"globex"}': "globex"}
    with container(mounts) as asked:
        for body in whose:
            asked.ask(body)
    for tenant, answered in zip(whose.values(), asked.answered, strict=True):
        assert (answered.status, answered.askers) == (200, {tenant or "single"})
        assert {entry[LABELS].get("tenant", "") for entry in answered.entries} == {tenant}
        assert [entry["run"]["tenant"] for entry in answered.entries if "run" in entry] == [tenant]
    assert [name for name in answered.names if name.endswith("state.json")] == [
        "state/tap-forensics/acme/state.json",
        "state/tap-forensics/globex/state.json",
        "state/tap-forensics/state.json",
        "tap-forensics/state.json",  # for the published function, and so of the single tenant alone
    ]


def test_what_names_no_tenant_is_refused_by_name_and_acknowledged_and_nothing_is_called(mounts: Path) -> None:
    with container(mounts) as asked:
        for body in REFUSALS:
            answered = asked.ask(body)
            assert (answered.status, answered.askers, answered.names) == (200, set(), [])
    for expected, answered in zip(REFUSALS.values(), asked.answered, strict=True):
        (entry,) = answered.entries
        assert entry["severity"] == "ERROR"
        assert entry["message"].startswith(expected)


def test_refused_credentials_are_told_by_tenant_and_a_new_file_is_used_by_the_next_run(mounts: Path) -> None:
    with container(mounts) as asked:
        valid = (mounts / "acme" / "credentials.json").read_text(encoding="utf-8")
        mount_one(mounts, "acme", "principal-of-acme", "0192-revoked")
        assert asked.ask(b'{"tenant": "acme"}').status == 500
        (mounts / "acme" / "credentials.json").write_text(valid, encoding="utf-8")
        assert asked.ask(b'{"tenant": "acme"}').status == 200
    failed, worked = asked.answered
    (refusal, end) = [entry for entry in failed.entries if entry["severity"] == "ERROR"]
    assert refusal["message"].startswith("TAP answered 401: principal or secret is wrong or was revoked")
    assert refusal["message"].endswith("(tenant acme, credentials.json)")
    assert end["run"]["outcome"] == "failed"
    assert worked.entries[-1]["run"]["outcome"] == "complete"
    output = "".join(asked.server.log)
    assert "0192-revoked" not in output
    assert base64.b64encode(b"principal-of-acme:0192-revoked").decode() not in output
