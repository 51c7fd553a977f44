"""Numbered NDJSON objects of a run: their names, and their writing so that none is written twice."""

from __future__ import annotations

from tap_forensics.errors import StorageFailed
from tap_forensics.storage.bucket import Bucket, Conflict
from tap_forensics.storage.state_store import StateStore

BATCH_BYTES = 4 * 1024 * 1024
_CONTENT_TYPE = "application/x-ndjson"


def object_name(prefix: str, run_id: str, number: int, stem: str = "tap_forensics") -> str:
    """`PREFIX/tap_forensics_YYYYMMDD_HHMMSS.ndjson`, then `…_0002.ndjson`."""
    base = f"{prefix}/{stem}_{run_id}".lstrip("/")
    return f"{base}.ndjson" if number == 1 else f"{base}_{number:04d}.ndjson"


def write_object(store: StateStore, bucket: Bucket, name: str, data: bytes) -> bytes | None:
    """None where the object is ours now; else the bytes that another run had put there.

    Raises `LeaseLost`, or `StorageFailed` with the object in doubt: whoever takes over looks for it.
    """
    store.in_doubt = True
    try:
        bucket.create(name, data, _CONTENT_TYPE)
    except Conflict as conflict:
        store.in_doubt = False
        if conflict.stored is None:
            raise StorageFailed(f"gs://{bucket.name}/{name} was there and then was not") from None
        # A run that slept through its lease wrote it, or the published function did. Is the lease ours?
        store.commit()
        return conflict.stored.data
    store.in_doubt = False
    return None
