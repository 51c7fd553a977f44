"""The numbered NDJSON objects of a run: their names, and how each is created only once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from tap_forensics.errors import StorageFailed
from tap_forensics.storage.bucket import Bucket, Conflict
from tap_forensics.storage.state_store import StateStore

BATCH_BYTES = 4 * 1024 * 1024
_CONTENT_TYPE = "application/x-ndjson"


def object_name(prefix: str, run_id: str, number: int, stem: str = "tap_forensics") -> str:
    """`PREFIX/tap_forensics_YYYYMMDD_HHMMSS.ndjson`, then `…_0002.ndjson`."""
    base = f"{prefix}/{stem}_{run_id}".lstrip("/")
    return f"{base}.ndjson" if number == 1 else f"{base}_{number:04d}.ndjson"


@dataclass(frozen=True)
class NumberedObjects:
    """One run's objects of one feed, created in order and never overwritten.

    `counted` returns how many of them are in the state. The caller counts an object and records its content
    in one transaction: a commit between the two would hide the object from a run that takes over.
    """

    store: StateStore
    bucket: Bucket
    log: logging.Logger
    prefix: str
    stem: str
    counted: Callable[[], int]

    def write(self, remaining: Callable[[], bytes], record: Callable[[bytes], None]) -> str | None:
        """Creates the next object from `remaining()`; returns its name, or None if nothing remains.

        If a zombie has written an object with this name, `record` gets its bytes and counts it; then
        `remaining` is called again. Raises `LeaseLost`, or `StorageFailed` with the object in doubt: a run
        that takes over looks for it.
        """
        self.store.ensure_lease()
        while data := remaining():
            name = self._next_name()
            theirs = self._create(name, data)
            if theirs is None:
                return name
            record(theirs)
            self.log.warning("Another run had written this batch's object; continuing with the next name")
        return None

    def recover(self, record: Callable[[bytes], None]) -> int:
        """Passes to `record` the objects of a dead run that are not in its last commit; returns how many.

        They were created in order, so the first missing name ends the search. An object that a feed has
        deleted is found if the bucket keeps old versions.
        """
        found = 0
        while stored := self.bucket.read_ever(self._next_name()):
            record(stored.data)
            found += 1
        return found

    def _next_name(self) -> str:
        return object_name(self.prefix, self.store.lease.run_id, self.counted() + 1, self.stem)

    def _create(self, name: str, data: bytes) -> bytes | None:
        """None if this run created the object; else the bytes that another run had written."""
        self.store.in_doubt = True
        try:
            self.bucket.create(name, data, _CONTENT_TYPE)
        except Conflict as conflict:
            self.store.in_doubt = False
            if conflict.stored is None:
                raise StorageFailed(
                    f"gs://{self.bucket.name}/{name} existed, but was gone when it was read"
                ) from None
            # A zombie or the published function wrote it. The commit checks that the lease is still ours.
            self.store.commit()
            return conflict.stored.data
        self.store.in_doubt = False
        return None
