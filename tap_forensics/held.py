"""The state while this run holds its lease: read, committed with a generation precondition, given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from tap_forensics.bucket import Bucket, Conflict, Stored
from tap_forensics.clock import Clock
from tap_forensics.errors import LeaseLost, StateUnreadable
from tap_forensics.ledger import Ledger
from tap_forensics.settings import Settings
from tap_forensics.state import VERSION, Lease, State, decode, encode, new_lease

# Cloud Storage takes about one write a second to one object name:
# https://cloud.google.com/storage/quotas#objects
_BETWEEN_COMMITS_SECONDS = 1.0
_BETWEEN_BATCH_COMMITS_SECONDS = 5.0
_LONGEST_WITHOUT_COMMIT_SECONDS = 60.0
_JSON = "application/json"
# One more than there are feeds.
_STATE_FOLDERS = ("state", "working-state", "collector-state")


@dataclass(frozen=True)
class Place:
    """Where the working state is; `handover` is the published function's object where that is another.

    `former`: where the state lay until the events' prefix came to contain it; read once, never written.
    """

    name: str
    handover: str | None
    former: str | None = None


def state_place(settings: Settings) -> Place:
    """Outside the feeds' prefixes: SecOps would ingest it there at every commit, and could delete it."""
    key = settings.state_key
    feeds = [f"{prefix}/" for prefix in (settings.gcs_prefix, settings.events_prefix) if prefix]
    if not key.startswith(tuple(feeds)):
        return Place(key, None)
    folders = (f"{folder}/{key}" for folder in _STATE_FOLDERS)
    outside = next(name for name in folders if not name.startswith(tuple(feeds)))
    if settings.gcs_prefix and key.startswith(f"{settings.gcs_prefix}/"):
        return Place(outside, key)
    return Place(outside, None, former=key)


def find_state(bucket: Bucket, place: Place, now: datetime) -> tuple[State, int]:
    """The state as a run would begin with it, and the generation of the working object (0: there is none).

    Raises `StateUnreadable` or `StorageFailed`.
    """
    if stored := bucket.read(place.name):
        return decode(stored.data, f"gs://{bucket.name}/{place.name}", now), stored.generation
    before = place.handover or place.former
    if before and (old := bucket.read(before)):
        return decode(old.data, f"gs://{bucket.name}/{before}", now), 0
    return State(VERSION), 0


class HeldState:
    """One run's state. Any thread may change it inside `changing`; commits happen one at a time.

    No lock that `changing` needs is held over an upload.
    """

    def __init__(self, bucket: Bucket, place: Place, clock: Clock, lease_seconds: int) -> None:
        self._bucket, self.place, self._clock = bucket, place, clock
        self._lease_seconds = lease_seconds
        self._changes = threading.Lock()
        self._commits = threading.Lock()
        self._committed_at = clock.monotonic() - _BETWEEN_COMMITS_SECONDS
        self._generation = 0
        self._holds_until = clock.now()
        self._state = State(VERSION)
        self._owner = ""
        self._ledger: Ledger | None = None
        self._lost: LeaseLost | None = None
        self.in_doubt = False
        self.taken_over = False

    def acquire(self) -> bool:
        """Takes the lease, a dead run's too; False while another run's is live, or where one was faster.

        Raises `StateUnreadable` or `StorageFailed`; nothing is written then.
        """
        now = self._clock.now()
        found, self._generation = find_state(self._bucket, self.place, now)
        if found.lease and found.lease.until > now:
            return False
        self.taken_over = found.lease is not None
        lease = new_lease(found, now, self._lease_seconds)
        self._owner = lease.owner
        self._state = msgspec.structs.replace(found, lease=lease)
        try:
            self.commit()
        except LeaseLost:
            return False
        return True

    @contextmanager
    def changing(self) -> Iterator[State]:
        """The state, to look at or to change, while no other thread does. Raises `LeaseLost` once it is."""
        with self._changes:
            if self._lost:
                raise self._lost
            yield self._state

    def keep_ledger(self, limits: dict[str, int | None]) -> Ledger:
        """The call ledger as the state has it; from now on each commit takes its count along."""
        with self._changes:
            self._ledger = Ledger(self._state.calls, limits)
        return self._ledger

    @property
    def cursor(self) -> datetime | None:
        return self._state.last_event_time

    @property
    def lease(self) -> Lease:
        """This run's lease. Only between `acquire` and `release`."""
        lease = self._state.lease
        if lease is None:
            raise LeaseLost("the lease was given back")
        return lease

    def commit(self) -> None:
        """Writes the state, at most once a second, and renews the lease.

        Raises `LeaseLost` or `StorageFailed`.
        """
        with self._commits:
            pause = _BETWEEN_COMMITS_SECONDS - self._seconds_since_commit()
            if pause > 0:
                self._clock.sleep(pause)
            self._write()

    def commit_if_due(self) -> None:
        """After a batch: commits, unless it did a moment ago; the next commit holds it then.

        Nothing hangs on it: a takeover finds the objects by name. Commits close together would make the
        run's last one wait.
        """
        moment = min(_BETWEEN_BATCH_COMMITS_SECONDS, self._lease_seconds / 6)
        if self._seconds_since_commit() >= max(_BETWEEN_COMMITS_SECONDS, moment):
            self.commit()

    def renew_if_due(self) -> None:
        """Commits once a minute or third of the lease, so that no other run takes over meanwhile."""
        due = min(_LONGEST_WITHOUT_COMMIT_SECONDS, self._lease_seconds / 3)
        if not self._lost and self._seconds_since_commit() >= max(due, _BETWEEN_COMMITS_SECONDS):
            self.commit()

    def renew_if_run_out(self) -> None:
        """Before a batch is written: a lease that ran out is ours only if the state says so still.

        Raises `LeaseLost`.
        """
        if self._lost:
            raise self._lost
        if self._clock.now() >= self._holds_until:
            self.commit()

    def release(self) -> None:
        """Gives the lease back with the last commit; not where a batch is in doubt: its object is found
        by the run that takes over.
        """
        if not self.in_doubt:
            with self._changes:
                self._state.last_run_id = self.lease.run_id
                self._state.lease = None
        self.commit()

    def write_handover(self) -> None:
        """The published function's own object, as it writes it, so that going back to it works."""
        cursor = self._state.last_event_time
        if self.place.handover is None or cursor is None:
            return
        data = msgspec.json.encode({"last_event_time": cursor.isoformat()})
        lies_there = self._bucket.read(self.place.handover)
        if lies_there is None or not _as_late(lies_there.data, cursor, self._clock.now()):
            generation = lies_there.generation if lies_there else 0
            self._bucket.replace(self.place.handover, data, _JSON, generation)

    def _write(self) -> None:
        until = self._clock.now() + timedelta(seconds=self._lease_seconds)
        with self._changes:
            if self._state.lease:
                self._state.lease.until = until
            if self._ledger:
                self._state.calls = self._ledger.dump()
            data = encode(self._state)
        self._committed_at = self._clock.monotonic()
        try:
            self._generation = self._replace(data)
        except Conflict as conflict:
            self._generation = self._generation_of_ours(conflict.stored)
            self._generation = self._replace(data)
        # Not before the answer: a renewal under way is none yet.
        self._holds_until = until

    def _replace(self, data: bytes) -> int:
        return self._bucket.replace(self.place.name, data, _JSON, self._generation)

    def _generation_of_ours(self, stored: Stored | None) -> int:
        """Of an earlier commit of this run whose answer never came; anything else is another run's."""
        where = f"gs://{self._bucket.name}/{self.place.name}"
        if stored:
            lease = decode(stored.data, where, self._clock.now()).lease
            if lease and lease.owner == self._owner:
                return stored.generation
        self._lost = LeaseLost(f"{where} was changed by another run, which holds the lease now")
        raise self._lost from None

    def _seconds_since_commit(self) -> float:
        return self._clock.monotonic() - self._committed_at


def _as_late(data: bytes, cursor: datetime, now: datetime) -> bool:
    """Whether another run, which ended while this one was held up, has brought the object up to date."""
    try:
        found = decode(data, "", now).last_event_time
    except StateUnreadable:
        return False
    return found is not None and found >= cursor
