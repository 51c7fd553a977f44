"""The feeds of SecOps against what the function writes: folder, log type, state, account."""

from __future__ import annotations

from collections.abc import Iterator

from google.api_core.exceptions import Forbidden, NotFound
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.cli.context import CommandContext
from tap_forensics.cli.diagnosis import Finding, ok, warning, wrong
from tap_forensics.cli.objects import storage_errors
from tap_forensics.cli.secops_kinds import Kind, kinds
from tap_forensics.config.settings import Settings
from tap_forensics.errors import StorageFailed
from tap_forensics.log import escape_unprintable
from tap_forensics.secops.connection import Secops
from tap_forensics.secops.failures import SecopsFailed
from tap_forensics.secops.feeds import SecopsFeed, feed_account
from tap_forensics.storage.remedies import DELETING_ROLES, LISTING_ROLES, OWNING_ROLES, READING_ROLES

_TIMEOUT = (10, 30)


def check_feeds(
    context: CommandContext, client: Client, settings: Settings, secops: Secops, feeds: list[SecopsFeed]
) -> Iterator[Finding]:
    """Raises `SecopsFailed` only if nothing more can be asked."""
    bucket = settings.bucket.name
    reading: list[SecopsFeed] = []
    for kind in kinds(settings):
        right = [feed for feed in feeds if _is_right(feed, bucket, kind)]
        yield from _folder(bucket, kind, feeds, right)
        for feed in right:
            yield _state(feed)
        reading += right
    if reading:
        yield from _accounts(context, client, bucket, secops, reading)


def _where(bucket: str, kind: Kind) -> str:
    return f"gs://{bucket}/{kind.feed.folder}"


def _is_right(feed: SecopsFeed, bucket: str, kind: Kind) -> bool:
    return feed.folder == _where(bucket, kind).rstrip("/") and feed.log_type == kind.log_type


def _folder(bucket: str, kind: Kind, feeds: list[SecopsFeed], right: list[SecopsFeed]) -> Iterator[Finding]:
    """Whether exactly one feed reads the folder, and as the right type."""
    where = _where(bucket, kind)
    for feed in feeds:
        yield from _mismatch(feed, where, kind, missing=not right)
    if not right:
        remedy = f"create one: Cloud Storage V2, {where}, {kind.log_type}; deploy/README.md, step 5"
        yield wrong("feed", f"no feed reads {where} as {kind.log_type}", remedy)
    if len(right) > 1:
        names = ", ".join(_name(feed) for feed in right[:3])
        yield wrong(
            "feed", f"{len(right)} feeds read {where}: {names}", "keep one: each of them ingests every line"
        )


def _mismatch(feed: SecopsFeed, where: str, kind: Kind, *, missing: bool) -> Iterator[Finding]:
    same_folder = feed.folder == where.rstrip("/")
    above = feed.uri.startswith("gs://") and where.startswith(f"{feed.folder}/") and not same_folder
    if same_folder and feed.log_type != kind.log_type:
        words = f"{_name(feed)} reads {where} as {_short(feed.log_type)}, but its lines are {kind.log_type}"
        yield wrong("feed", words, "change its log type, or delete it")
    elif above:
        words = f"{_name(feed)} reads {_short(feed.uri)}, and so {where} too, as {_short(feed.log_type)}"
        yield wrong("feed", words, f"set its URI to one folder, such as {where}")
    elif missing and feed.log_type == kind.log_type and feed.uri:
        words = f"{_name(feed)} reads {_short(feed.uri)}, but the function writes to {where}"
        yield wrong("feed", words, "compare with GCS_BUCKET and the folder, letter by letter")
    elif feed.log_type == kind.log_type and feed.source == "API" and feed.state != "INACTIVE":
        words = (
            f"{_name(feed)} gets {kind.log_type} from TAP itself: the same events are ingested a second time"
        )
        yield warning("feed", words, "keep one of the two; on one service principal they share TAP's quota")


def _state(feed: SecopsFeed) -> Finding:
    last = f"last success {_short(feed.last_success)}" if feed.last_success else "no success so far"
    words = f"{feed.log_type}: {_name(feed)} is {_short(feed.state)}, {last}"
    if feed.state == "FAILED":
        cause, action = feed.failure
        return wrong("feed", f"{words}: {_short(cause)}", _short(action) or "see the feed's page in SecOps")
    if feed.state == "INACTIVE":
        return wrong("feed", f"{words}: it is disabled", "enable it: SecOps, Settings, SIEM Settings, Feeds")
    if not feed.last_success:
        return warning("feed", words, "a new feed takes some minutes to read for the first time")
    return ok("feed", f"{words}; reads {_short(feed.uri)}")


def _accounts(
    context: CommandContext, client: Client, bucket: str, secops: Secops, feeds: list[SecopsFeed]
) -> Iterator[Finding]:
    """Whether the accounts that read have their two roles on the bucket."""
    try:
        common = "" if all(feed.account for feed in feeds) else feed_account(secops)
        held = _roles(client, bucket)
    except SecopsFailed as failed:
        if failed.final:
            raise
        yield warning("feed account", failed.words, failed.remedy)
        return
    except StorageFailed as error:
        yield _not_asked(context, bucket, error)
        return
    deleting = {feed.account or common for feed in feeds if feed.deletes}
    for account in sorted({feed.account or common for feed in feeds}):
        yield _account(account, bucket, held.get(account, set()), deletes=account in deleting)


def _not_asked(context: CommandContext, bucket: str, error: StorageFailed) -> Finding:
    if context.emulated and isinstance(error.__cause__, NotFound):
        return warning("feed account", f"an emulator has no rights: not checked on gs://{bucket}")
    words = f"{str(error).partition('; ')[0]}: not checked"
    right = "run this as someone with storage.buckets.getIamPolicy on the bucket"
    return warning("feed account", words, right if isinstance(error.__cause__, Forbidden) else "")


def _roles(client: Client, bucket: str) -> dict[str, set[str]]:
    """Each service account with its roles on the bucket itself. Raises `StorageFailed`."""
    with storage_errors(f"read who may use gs://{bucket}"):
        policy = client.bucket(bucket).get_iam_policy(
            requested_policy_version=3, timeout=_TIMEOUT, retry=DEFAULT_RETRY.with_timeout(30)
        )
    roles: dict[str, set[str]] = {}
    for binding in policy.bindings:
        for member in binding["members"]:
            roles.setdefault(member.removeprefix("serviceAccount:"), set()).add(binding["role"])
    return roles


def _account(account: str, bucket: str, held: set[str], *, deletes: bool) -> Finding:
    if not account:
        remedy = "compare by hand: a feed's page shows it under Get a service account"
        return warning("feed account", "SecOps does not name the account that reads the bucket", remedy)
    lacking = [
        roles[0]
        for roles in (READING_ROLES, LISTING_ROLES, *([DELETING_ROLES] if deletes else []))
        if not held & {*roles, *OWNING_ROLES}
    ]
    name = escape_unprintable(account)
    if lacking:
        words = f"{name}, which reads for SecOps, lacks {', '.join(lacking)} on gs://{bucket}"
        remedy = (
            "set feed_service_account in Terraform, or grant by gcloud; a project's role is not seen here"
        )
        return wrong("feed account", words, remedy)
    return ok("feed account", f"{name} may list and read gs://{bucket}")


def _name(feed: SecopsFeed) -> str:
    return f"the feed “{escape_unprintable(feed.name, 60)}”"


def _short(text: str) -> str:
    return escape_unprintable(text)
