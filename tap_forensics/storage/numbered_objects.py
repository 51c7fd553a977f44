"""Numbered NDJSON objects of a run: their names, and their writing so that none is written twice."""

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
    """One run's objects of one feed, created one after the other; none is ever written over.

    `counted` tells how many of them the state knows. Whoever counts one more records what is in it in the
    same transaction: a commit between the two would hide the object from a run that takes over.
    """

    store: StateStore
    bucket: Bucket
    log: logging.Logger
    prefix: str
    stem: str
    counted: Callable[[], int]

    def write(self, remaining: Callable[[], bytes], record: Callable[[bytes], None]) -> str | None:
        """Creates the next object from `remaining()`; returns its name, or None if nothing remains.

        If a zombie has written an object under our name, `record` gets its bytes and counts it; then
        `remaining` is asked again. Raises `LeaseLost`, or `StorageFailed` with the object in doubt: the run
        that takes over looks for it.
        """
        self.store.ensure_lease()
        while data := remaining():
            name = self._next_name()
            theirs = self._create(name, data)
            if theirs is None:
                return name
            record(theirs)
            self.log.warning("Another run had written this batch's object; going on with the next name")
        return None

    def recover(self, record: Callable[[bytes], None]) -> int:
        """Gives `record` the objects of a dead run that its last commit did not know; returns how many.

        They were created one after the other, so the first missing name ends the search. One that a feed has
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
        """None if the object is ours now; else the bytes that another run had put there."""
        self.store.in_doubt = True
        try:
            self.bucket.create(name, data, _CONTENT_TYPE)
        except Conflict as conflict:
            self.store.in_doubt = False
            if conflict.stored is None:
                raise StorageFailed(f"gs://{self.bucket.name}/{name} was there and then was not") from None
            # A zombie wrote it, or the published function did. Is the lease ours?
            self.store.commit()
            return conflict.stored.data
        self.store.in_doubt = False
        return None
