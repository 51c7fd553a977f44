"""The function runs with exactly the rights that are deployed, and needs each of them."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from requests import PreparedRequest, Response

from tap_forensics.collect import collect
from tap_forensics.config.tenants import CREDENTIALS_FILE, load_tenant
from tap_forensics.sandbox.world import World
from tap_forensics.stats import RunStats
from tap_forensics.storage.remedies import REMEDIES
from tests.deploy.facts import FACTS
from tests.support.events_lab import EVENTS, SEEN, event_lines
from tests.support.lab import START, Lab, RunResult, open_lab
from tests.support.lab_bucket import Through
from tests.support.logs import LogCollector
from tests.support.permissions import CREATE, GET, Permissions, Right, rights_of
from tests.support.scenes import once_each
from tests.support.settings import HANDOVER, PREFIX, STATE

EVIDENCE = re.compile(rb'"name": ?"tap-forensics/tap_forensics_')
OBJECTS = "projects/_/buckets/demo-bucket/objects"
# The library drops the connection of a failed download without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def deployed_rights() -> list[Right]:
    """Of the function's account, as Terraform and the quick start give them, with a folder for events."""
    rights: list[Right] = []
    for line in FACTS["roles"]["bucket"] + FACTS["roles_for_events"]:
        role, who, *condition = line.split(" ", 2)
        if who == FACTS["function"]["runs_as"]:
            here = (text.replace(f"/{FACTS['bucket']['name']}/", "/demo-bucket/") for text in condition)
            rights += rights_of(role, *here)
    return rights


RIGHTS = deployed_rights()
DEPLOYED = {"STATE_KEY": FACTS["environment"]["STATE_KEY"], "EVENTS_PREFIX": EVENTS, "LOOKBACK_HOURS": "2"}


class KilledAfterEvidence(Through):
    """A process that is killed when it has written an evidence object, before it can commit that."""

    def __init__(self, gate: Permissions) -> None:
        super().__init__()
        self.gate, self.killed = gate, False

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        if self.killed:
            raise OSError("this process was killed")
        self.gate.inner = self.inner
        response = self.gate.send(request, *args, **kwargs)
        body = request.body if isinstance(request.body, bytes) else b""
        self.killed = request.method == "POST" and EVIDENCE.search(body) is not None
        return response


def die_and_take_over(lab: Lab, gate: Permissions) -> list[RunResult]:
    """A first run that dies, the run that takes over, and one more an hour later."""
    with lab.through(KilledAfterEvidence(gate)):
        runs = [lab.run()]
    with lab.through(gate):
        lab.clock.step(minutes=10)
        runs.append(lab.run())
        lab.clock.step(hours=1)
        runs.append(lab.run())
    return runs


@contextmanager
def deployed_lab(world: World | None = None) -> Iterator[Lab]:
    with open_lab(world, **DEPLOYED) as lab:
        lab.bucket.keep_versions()
        yield lab


def test_a_dead_run_a_takeover_and_a_later_run_use_every_right_and_need_no_other() -> None:
    with deployed_lab() as lab:
        gate = Permissions(RIGHTS, lab.bucket)
        _, takeover, later = die_and_take_over(lab, gate)
        assert takeover.has_message("Taking over run")
        assert takeover.has_message("2 finished objects found")
        assert [takeover.stats.outcome, later.stats.outcome] == ["complete", "complete"]
        assert once_each(lab)
        assert set(Counter(event["GUID"] for event in event_lines(lab)).values()) == {1}
        assert lab.bucket.generation(SEEN)
        assert gate.refused == []
        assert gate.used == set(RIGHTS)


@pytest.mark.parametrize("right", RIGHTS, ids=str)
def test_without_one_right_a_run_fails_and_names_the_remedy(right: Right) -> None:
    with deployed_lab() as lab:
        gate = Permissions([held for held in RIGHTS if held != right], lab.bucket)
        failures = [str(result.error) for result in die_and_take_over(lab, gate)]
        assert any(failure.endswith(f"Forbidden (403); {REMEDIES[403]}") for failure in failures), failures
        assert {asked.permission for asked in gate.refused} == {right.permission}


def test_evidence_that_is_uploaded_in_parts_needs_no_more() -> None:
    with deployed_lab(World.from_threats(1, now=START, report_bytes=9_000_000)) as lab:
        gate = Permissions(RIGHTS, lab.bucket)
        with lab.through(gate):
            assert lab.run().stats.outcome == "complete"
        assert max(len(data) for data in lab.evidence().values()) > 8 * 1024 * 1024
        assert gate.refused == []


def test_a_tenant_needs_no_rights_of_its_own(tmp_path: Path) -> None:
    with deployed_lab() as lab:
        pair = {"principal": lab.tap.principal, "secret": lab.tap.secret}
        (tmp_path / "acme").mkdir()
        (tmp_path / "acme" / CREDENTIALS_FILE).write_text(json.dumps(pair), encoding="utf-8")
        settings = load_tenant({**lab.env, "TENANTS_DIR": str(tmp_path)}, "acme")
        gate = Permissions(RIGHTS, lab.bucket)
        with lab.through(gate):
            stats: RunStats = collect(settings, lab.bucket.client, lab.clock.as_clock, LogCollector().logger)
        assert (stats.outcome, gate.refused) == ("complete", [])
        assert {name.rpartition("/")[0] for name in lab.bucket.names()} == {
            f"{PREFIX}/acme",
            f"{EVENTS}/acme",
            f"state/{PREFIX}/acme",
        }


def test_without_a_folder_the_names_of_evidence_and_state_are_enough() -> None:
    """What deploy/README.md says for GCS_PREFIX="", which neither way of deploying accepts."""
    rights = [
        *rights_of("roles/storage.legacyBucketReader"),
        *rights_of("roles/storage.objectCreator", f'resource.name.startsWith("{OBJECTS}/tap_forensics_")'),
        *rights_of("roles/storage.objectViewer", f'resource.name.startsWith("{OBJECTS}/tap_forensics_")'),
        *rights_of("roles/storage.objectUser", f'resource.name.startsWith("{OBJECTS}/state.json")'),
    ]
    with open_lab(GCS_PREFIX="") as lab:
        gate = Permissions(rights, lab.bucket)
        with lab.through(gate):
            assert lab.run().stats.outcome == "complete"
        assert gate.refused == []


@pytest.mark.parametrize("more", [False, True], ids=["deployed", "and its old state"])
def test_the_published_functions_state_object_needs_one_more_role(more: bool) -> None:
    """With its variables the state object is in the evidence folder, where nothing may be replaced."""
    rights = [
        *RIGHTS,
        *rights_of("roles/storage.objectUser", f'resource.name.startsWith("{OBJECTS}/{HANDOVER}")'),
    ]
    with open_lab(EVENTS_PREFIX=EVENTS) as lab:
        lab.bucket.put(HANDOVER, json.dumps({"last_event_time": "2026-03-04T08:30:00+00:00"}))
        before = lab.bucket.generation(HANDOVER)
        with lab.through(Permissions(rights if more else RIGHTS, lab.bucket)):
            result = lab.run()
        assert result.stats.outcome == "complete"
        assert once_each(lab)
        assert lab.bucket.generation(STATE)
        assert (lab.bucket.generation(HANDOVER) != before) is more
        told = [message for message in result.messages(logging.WARNING) if REMEDIES[403] in message]
        assert bool(told) is not more
        assert all("Could not update the published function's state object" in message for message in told)


def test_rights_are_looked_up_by_name_and_listing_by_bucket() -> None:
    """The gate itself: one folder's right is none in another whose name begins alike."""
    with open_lab(GCS_PREFIX="tap-forensics-2", **DEPLOYED) as lab:
        gate = Permissions([*RIGHTS, Right(GET, f"{OBJECTS}/tap-forensics-2/")], lab.bucket)
        with lab.through(gate):
            assert REMEDIES[403] in str(lab.run().failure)
        assert {(asked.permission, asked.name[:16]) for asked in gate.refused} == {
            (CREATE, "tap-forensics-2/")
        }
