"""Storage errors in one sentence with their remedy. The only table of remedies."""

from __future__ import annotations

READER_ROLE = "roles/storage.objectViewer"
# For `state repair`, `state reset` and `backfill`.
OPERATOR_ROLE = "roles/storage.objectUser"
# The function's roles and what each is for; the deployment says it again as conditions on object names.
FUNCTION_ROLES = {
    "roles/storage.legacyBucketReader": "the bucket",
    "roles/storage.objectUser": "the folder of its state",
    "roles/storage.objectCreator": "the folders that feeds read",
    "roles/storage.objectViewer": "the same folders",
}
# Each of them lets a feed's account read objects, list the bucket, delete objects, or do all of it. The first
# one is what deploy/ grants.
READING_ROLES = (READER_ROLE, OPERATOR_ROLE, "roles/storage.objectAdmin")
LISTING_ROLES = ("roles/storage.legacyBucketReader", "roles/storage.legacyBucketWriter")
DELETING_ROLES = ("roles/storage.legacyBucketWriter",)
OWNING_ROLES = ("roles/storage.admin", "roles/storage.legacyBucketOwner")
GIVE_FUNCTION_ROLES = "give the function's service account " + ", ".join(
    f"{role} on {place}" for role, place in FUNCTION_ROLES.items()
)

REMEDIES = {
    401: "no usable Google credentials: check the function's service account, "
    "or on a laptop run `gcloud auth application-default login`",
    403: f"{GIVE_FUNCTION_ROLES}; an operator needs {READER_ROLE} to read, "
    f"and {OPERATOR_ROLE} to repair or backfill",
    404: "check the bucket's name, for the function check GCS_BUCKET: there is no such bucket",
}
NO_CREDENTIALS = (
    "no Google credentials were found: run as a service account, or on a laptop "
    "`gcloud auth application-default login`, or set STORAGE_EMULATOR_HOST"
)


def storage_fault(what: str, error: Exception) -> str:
    """A sentence that `what` failed, with the error's class, code and remedy, but never its text."""
    code = getattr(error, "code", None)
    number = "" if code is None else f" ({int(code)})"
    remedy = REMEDIES.get(int(code)) if code is not None else None
    return f"could not {what}: {type(error).__name__}{number}{f'; {remedy}' if remedy else ''}"
