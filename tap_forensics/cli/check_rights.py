"""The rights' part of the health check: what the function needs on its bucket and objects, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.api_core.exceptions import NotFound
from google.cloud.storage import Bucket, Client
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.cli.context import CommandContext
from tap_forensics.cli.diagnosis import Finding, ok, warning, wrong
from tap_forensics.cli.objects import feeds, storage_errors
from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import StorageFailed
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.remedies import GIVE_FUNCTION_ROLES

CREATE, DELETE, GET, LIST = (f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list"))
# Too much on the whole bucket: with these somebody could publish or destroy the evidence.
UNWANTED = (DELETE, "storage.buckets.delete", "storage.buckets.setIamPolicy", "storage.buckets.update")
_TIMEOUT = (10, 30)
_TOO_MUCH = (
    "if that is the function's account, take it away; if it is you, check as the function: "
    "gcloud auth application-default login --impersonate-service-account=ACCOUNT"
)


@dataclass(frozen=True)
class Place:
    """What the function needs on one object, or on the bucket if `name` is empty; `mark` is for a lack."""

    name: str
    rights: tuple[str, ...]
    purpose: str
    mark: Callable[[str, str, str], Finding] = wrong


def needed(settings: Settings) -> list[Place]:
    """Conditions are on object names, so each folder is asked about by the name of an object in it."""
    location = state_location(settings)
    places = [
        Place("", (LIST,), "to tell a missing object from a forbidden one"),
        Place(location.name, (GET, CREATE, DELETE), "to read and replace the state"),
    ]
    places += [
        Place(
            f"{feed.folder}{feed.stem}_check.ndjson",
            (CREATE, GET),
            "to write objects, and to read those of a run that died",
        )
        for feed in feeds(settings)
    ]
    if location.legacy_key:
        purpose = "to read and replace the published function's state"
        # A run goes on without it.
        places.append(Place(location.legacy_key, (GET, CREATE, DELETE), purpose, warning))
    return places


def check_rights(context: CommandContext, client: Client, settings: Settings) -> Iterator[Finding]:
    """The rights of whoever runs this. Raises `StorageFailed` if the bucket cannot be asked at all."""
    bucket, places = client.bucket(settings.bucket.name), needed(settings)
    where, who = f"gs://{bucket.name}", _identity(client)
    asked = {*UNWANTED, *(right for place in places for right in place.rights)}
    try:
        with storage_errors(f"ask for the rights on {where}"):
            on_bucket = _held(client, bucket.path, asked)
    except StorageFailed as error:
        if context.emulated and isinstance(error.__cause__, NotFound):
            yield warning("rights", f"an emulator has no rights: not checked on {where}")
            return
        raise
    lacking = [finding for place in places for finding in _lacking(bucket, who, place, on_bucket)]
    yield from lacking or [ok("rights", f"{who} may do on {where} what the function does")]
    for right in UNWANTED:
        if right in on_bucket:
            words = f"{who} has {right} on all of {where}, which the function never needs"
            yield warning("rights", words, _TOO_MUCH)


def _lacking(bucket: Bucket, who: str, place: Place, on_bucket: set[str]) -> Iterator[Finding]:
    """What is held neither on the whole bucket nor, under a condition, on this name."""
    lacking, where = set(place.rights) - on_bucket, f"gs://{bucket.name}"
    if lacking and place.name:
        where = f"{where}/{escape_unprintable(place.name)}"
        try:
            with storage_errors(f"ask for the rights on {where}"):
                lacking -= _held(bucket.client, bucket.blob(place.name).path, lacking)
        except StorageFailed as error:
            yield warning("rights", f"{str(error).partition('; ')[0]}: these were not checked")
            return
    if lacking:
        words = f"{who} lacks {', '.join(sorted(lacking))} on {where}, {place.purpose}"
        yield place.mark("rights", words, GIVE_FUNCTION_ROLES)


def _held(client: Client, path: str, rights: set[str]) -> set[str]:
    """Of these rights the ones that the caller has on a bucket or an object.

    https://cloud.google.com/storage/docs/json_api/v1/buckets/testIamPermissions; the library has no call for
    the same question about an object.
    """
    answer = client._get_resource(
        f"{path}/iam/testPermissions",
        query_params={"permissions": sorted(rights)},
        timeout=_TIMEOUT,
        retry=DEFAULT_RETRY.with_timeout(30),
    )
    return set(answer.get("permissions", []))


def _identity(client: Client) -> str:
    email = getattr(client._credentials, "service_account_email", None)
    return escape_unprintable(str(email)) if email and email != "default" else "this identity"
