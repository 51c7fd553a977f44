"""Whether the feeds fit what the function writes, and whether they work."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud.chronicle_v1.types import FeedServiceAccount, ListFeedsResponse
from google.protobuf.json_format import ParseDict

from tests.integration.cli.conftest import Site, gate_before
from tests.integration.cli.secops.conftest import FORENSICS, MAIL, check, found
from tests.support.secops_api import ACCOUNT, INSTANCE, SecopsApi, feed

READS, LISTS = "roles/storage.objectViewer", "roles/storage.legacyBucketReader"


def test_the_stand_in_sends_what_googles_schema_has(api: SecopsApi) -> None:
    listed: Any = ListFeedsResponse.pb()()
    ParseDict({"feeds": api.feeds, "nextPageToken": "1"}, listed)
    assert listed.feeds[0].details.gcs_v2_settings.bucket_uri == "gs://demo-bucket/tap-forensics/"
    ParseDict(api.account, FeedServiceAccount.pb()())


def test_all_is_well_and_nothing_is_written(site: Site, api: SecopsApi) -> None:
    before = site.bucket.objects()
    (evidence, events) = found(site, "feed")
    assert evidence == (
        "ok",
        f"{FORENSICS}: the feed “collector” is SUCCEEDED, last success 2026-11-26T20:15:00Z; "
        "reads gs://demo-bucket/tap-forensics/",
    )
    assert events[0] == "ok"
    assert site.bucket.objects() == before
    posted = {call.path.partition(":")[2] for call in api.calls if call.method != "GET"}
    assert posted == {"runParser", "searchRawLogs"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"state": "INACTIVE"}, "is INACTIVE, last success 2026-11-26T20:15:00Z: it is disabled enable it"),
        (
            {
                "state": "FAILED",
                "failureDetails": {
                    "errorCode": "ACCESS_DENIED",
                    "httpErrorCode": 403,
                    "errorCause": "no access\x1b[2J",
                    "errorAction": "grant it",
                },
            },
            "is FAILED, last success 2026-11-26T20:15:00Z: no access\\x1b[2J (ACCESS_DENIED, 403) grant it",
        ),
        ({"state": "FAILED", "failureMsg": "it broke"}, "it broke see the feed's page"),
    ],
)
def test_a_feed_that_does_not_work_is_shown_with_its_reason(
    site: Site, api: SecopsApi, changed: dict[str, Any], words: str
) -> None:
    api.feeds[0] |= changed
    bad, good = found(site, "feed")
    assert bad[0] == "wrong"
    assert words in bad[1]
    assert good[0] == "ok"
    result = check(site)
    assert result.exit_code == 1
    assert "\x1b" not in result.output


def test_a_new_feed_is_given_time(site: Site, api: SecopsApi) -> None:
    api.feeds[0] |= {"state": "ACTIVE", "lastFeedInitiationTime": None}
    mark, words = found(site, "feed")[0]
    assert mark == "warning"
    assert "ACTIVE, no success so far" in words


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ([], "no feed reads gs://demo-bucket/tap-forensics/ as PROOFPOINT_TAP_FORENSICS create one"),
        (
            [feed("gs://other/x/", FORENSICS)],
            "reads gs://other/x/, but the function writes to gs://demo-bucket/tap-forensics/",
        ),
        (
            [feed("gs://demo-bucket/tap-forensics", MAIL)],
            "as PROOFPOINT_MAIL, but its lines are PROOFPOINT_TAP_FORENSICS",
        ),
        (
            [feed("gs://demo-bucket/", FORENSICS)],
            "reads gs://demo-bucket/, and so gs://demo-bucket/tap-forensics/ too",
        ),
        (
            [feed("gs://demo-bucket/tap-forensics//", FORENSICS)] * 2,
            "2 feeds read gs://demo-bucket/tap-forensics/",
        ),
    ],
)
def test_each_way_in_which_a_feed_does_not_fit_is_named(
    site: Site, api: SecopsApi, feeds: list[Any], words: str
) -> None:
    api.feeds = [*feeds, feed("gs://demo-bucket/tap-siem/", MAIL)]
    wrong = [sentence for mark, sentence in found(site, "feed") if mark == "wrong"]
    assert any(words in sentence for sentence in wrong), wrong


def test_a_feed_on_other_folders_is_none_of_our_business(site: Site, api: SecopsApi) -> None:
    api.feeds += [feed("gs://demo-bucket/tap-forensics-2/", "OKTA"), feed("", "PROOFPOINT_TRAP")]
    assert [mark for mark, _ in found(site, "feed")] == ["ok", "ok"]


def test_a_second_source_of_the_same_events_is_warned_of(site: Site, api: SecopsApi) -> None:
    details = {"feedSourceType": "API", "logType": f"{INSTANCE}/logTypes/{MAIL}"}
    api.feeds.append({"displayName": "TAP alerts", "details": details, "state": "SUCCEEDED"})
    assert [words for mark, words in found(site, "feed") if mark == "warning"] == [
        "the feed “TAP alerts” gets PROOFPOINT_MAIL from TAP itself: the same events are ingested "
        "a second time keep one of the two; on one service principal they share TAP's quota"
    ]
    assert [mark for mark, _ in found(site, "feed", EVENTS_PREFIX="")] == ["ok"]


def accounts(site: Site, policy: dict[str, list[str]]) -> list[tuple[str, str]]:
    with gate_before(site.bucket) as gate:
        gate.policy = {role: [f"serviceAccount:{m}" for m in members] for role, members in policy.items()}
        return found(site, "feed account", STORAGE_EMULATOR_HOST=gate.url)


def test_the_account_that_reads_has_its_two_roles(site: Site, api: SecopsApi) -> None:
    for read in (READS, "roles/storage.objectAdmin"):
        listed = accounts(site, {read: ["other@example.com", ACCOUNT], LISTS: [ACCOUNT]})
        assert listed == [("ok", f"{ACCOUNT} may list and read gs://demo-bucket")]
    api.account = {}
    ((mark, words),) = accounts(site, {})
    assert mark == "warning"
    assert "does not name the account" in words


def test_roles_that_the_reading_accounts_lack_are_named(site: Site, api: SecopsApi) -> None:
    """One feed names its account and deletes what it has read; the other has the account of all."""
    other = "other@example.com"
    settings = {"chronicleServiceAccount": other, "sourceDeletionOption": "ON_SUCCESS"}
    api.feeds[1] = feed("gs://demo-bucket/tap-siem/", MAIL, settings=settings)
    listed = accounts(site, {READS: [ACCOUNT], LISTS: [other]})
    assert [mark for mark, _ in listed] == ["wrong", "wrong"]
    assert (
        f"{other}, which reads for SecOps, lacks {READS}, roles/storage.legacyBucketWriter on" in listed[0][1]
    )
    assert f"{ACCOUNT}, which reads for SecOps, lacks {LISTS} on gs://demo-bucket" in listed[1][1]


def test_who_may_not_see_the_policy_is_told_whom_to_ask(site: Site, api: SecopsApi) -> None:
    api.fails["feedServiceAccounts"] = (403, b"{}")
    ((mark, words),) = accounts(site, {})
    assert (mark, "may not do that (403)" in words) == ("warning", True)
    del api.fails["feedServiceAccounts"]
    ((mark, words),) = found(site, "feed account")
    assert mark == "warning"
    assert "an emulator has no rights" in words
    with gate_before(site.bucket) as gate:
        gate.policy = 403
        ((mark, words),) = found(site, "feed account", STORAGE_EMULATOR_HOST=gate.url)
    assert mark == "warning"
    assert "storage.buckets.getIamPolicy" in words
