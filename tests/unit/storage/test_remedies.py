"""One table of remedies at the bucket: the function, its doctor and those who read evidence say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from google.api_core.exceptions import Forbidden, NotFound, Unauthorized

import tap_forensics
from tap_forensics.cli.objects import Listing, list_objects
from tap_forensics.errors import StorageFailed
from tap_forensics.report.source import SourceFault, _listed
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.remedies import FUNCTION_ROLES, REMEDIES, storage_fault
from tests.unit.storage.test_bucket import BUCKET, StubServer, stub

CODE = Path(tap_forensics.__file__).parent


def test_each_way_to_the_bucket_names_the_same_remedy() -> None:
    with stub(StubServer(403, 10**9, "")) as server:
        client = FakeBucket(BUCKET, server.server_port).client()
        with pytest.raises(StorageFailed) as run:
            Bucket(client, BUCKET, lambda: 30.0).read("o")
        with pytest.raises(StorageFailed) as doctor:
            list(list_objects(client, BUCKET, Listing("")))
        with pytest.raises(SourceFault) as reader:
            list(_listed(client, BUCKET, ""))
        client.close()
    for error in (run, doctor, reader):
        assert str(error.value).endswith(f"Forbidden (403); {REMEDIES[403]}")


def test_the_roles_that_are_named_are_those_that_are_deployed() -> None:
    """tests/deploy holds Terraform and the quick start to facts.json."""
    facts = json.loads((CODE.parent / "tests" / "deploy" / "facts.json").read_text(encoding="utf-8"))
    who = facts["function"]["runs_as"]
    assert {line.split()[0] for line in facts["roles"]["bucket"] if f" {who}" in line} == set(FUNCTION_ROLES)
    for file in ("SECURITY.md", "deploy/quickstart.sh", "deploy/terraform/identity.tf"):
        text = (CODE.parent / file).read_text(encoding="utf-8")
        assert [role for role in FUNCTION_ROLES if role not in text] == [], file
    assert all(role in REMEDIES[403] for role in FUNCTION_ROLES)


def test_no_other_module_names_a_role() -> None:
    naming = [
        path.name
        for path in CODE.rglob("*.py")
        if re.search(
            r"object(Admin|Creator|User|Viewer)|legacyBucket|roles/storage", path.read_text(encoding="utf-8")
        )
    ]
    assert naming == ["remedies.py"]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (Unauthorized, "Unauthorized (401); " + REMEDIES[401]),
        (Forbidden, "Forbidden (403); " + REMEDIES[403]),
        (NotFound, "NotFound (404); " + REMEDIES[404]),
        (OSError, "OSError"),
    ],
)
def test_an_error_is_told_by_kind_code_and_remedy(error: Callable[[str], Exception], ending: str) -> None:
    assert storage_fault("read gs://b/o", error("s3cr3t")) == f"could not read gs://b/o: {ending}"
