"""quickstart.sh where it cannot go on: one sentence that names the remedy, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.facts import FACTS
from tests.deploy.google_cloud import PROJECT_ID, GoogleCloud, error
from tests.deploy.quickstart import Quickstart

BUCKET = FACTS["bucket"]["name"]
BILLING_OFF = (
    f"billing is off for project {PROJECT_ID}: link a billing account "
    f"(https://console.cloud.google.com/billing/linkedaccount?project={PROJECT_ID}), then run this again"
)
FORBIDDEN = error(403, "PERMISSION_DENIED", "The caller does not have permission")
# As Google words it.
NO_BILLING = error(
    400,
    "FAILED_PRECONDITION",
    "Billing account for project '123456789012' is not found. Billing must be enabled for activation of "
    "service(s) 'run.googleapis.com' to proceed.",
)
# One gcloud command takes about a second.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def quickstart(tmp_path: Path) -> Iterator[Quickstart]:
    with GoogleCloud() as cloud:
        yield Quickstart(cloud, tmp_path)


def nothing_is_made(cloud: GoogleCloud) -> bool:
    """Beside services that were enabled."""
    return not [call for call in cloud.calls if call.changes() and "serviceusage" not in call.path]


def test_without_a_sign_in_it_says_so(quickstart: Quickstart) -> None:
    del quickstart.env["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"]
    said = quickstart.refusal()
    assert (
        said == "gcloud is not signed in, or its sign-in has expired: run gcloud auth login, then this again"
    )
    assert quickstart.cloud.calls == []


def test_a_project_that_may_not_be_looked_at(quickstart: Quickstart) -> None:
    quickstart.cloud.refused["GET /cloudresourcemanager/"] = FORBIDDEN
    assert quickstart.refusal().startswith(f"project {PROJECT_ID} was not found, or you may not look at it:")


def test_billing_that_is_off(quickstart: Quickstart) -> None:
    quickstart.cloud.billing = False
    assert quickstart.refusal() == BILLING_OFF
    assert nothing_is_made(quickstart.cloud)


def test_billing_that_is_noticed_when_services_are_enabled(quickstart: Quickstart) -> None:
    quickstart.cloud.refused |= {"GET /cloudbilling/": FORBIDDEN, "POST .*:batchEnable": NO_BILLING}
    assert quickstart.refusal() == BILLING_OFF


def test_services_that_cannot_be_enabled_are_named(quickstart: Quickstart) -> None:
    quickstart.cloud.refused["POST .*:batchEnable"] = FORBIDDEN
    said = quickstart.refusal()
    assert said.startswith("these services are off and cannot be enabled by you: ")
    assert all(service in said for service in FACTS["services"])
    assert "roles/serviceusage.serviceUsageAdmin" in said
    assert nothing_is_made(quickstart.cloud)


def test_services_that_cannot_be_listed(quickstart: Quickstart) -> None:
    quickstart.cloud.refused["GET /serviceusage/"] = FORBIDDEN
    assert "you need roles/serviceusage.serviceUsageAdmin" in quickstart.refusal()


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_bucket_of_another_project_is_refused(quickstart: Quickstart, options: tuple[str, ...]) -> None:
    quickstart.cloud.create("storage", BUCKET, {"projectNumber": "987654321098"})
    said = quickstart.refusal(*options)
    assert said.startswith(f"gs://{BUCKET} is in another project (number 987654321098): choose another name")
    assert nothing_is_made(quickstart.cloud)


def test_a_bucket_that_may_not_be_looked_at_is_refused(quickstart: Quickstart) -> None:
    quickstart.cloud.refused[f"GET /storage/.*/b/{BUCKET}$"] = FORBIDDEN
    assert quickstart.refusal().startswith(f"gs://{BUCKET} cannot be looked at: all of Google Cloud shares")
    assert nothing_is_made(quickstart.cloud)
