"""Storage errors in one sentence with their remedy. The only table of remedies."""

from __future__ import annotations

COLLECTOR_ROLE = "roles/storage.objectUser"
READER_ROLE = "roles/storage.objectViewer"

REMEDIES = {
    401: "no usable Google credentials: check the function's service account, "
    "or on a laptop run `gcloud auth application-default login`",
    403: f"give the function's service account {COLLECTOR_ROLE} on this bucket; "
    f"to read only, {READER_ROLE} is enough",
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
