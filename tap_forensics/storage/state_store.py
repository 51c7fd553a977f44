"""The state during a run: acquired with a lease, committed with a generation precondition, released."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from tap_forensics.clock import Clock
from tap_forensics.config.state_location import StateLocation
from tap_forensics.errors import LeaseHeld, LeaseLost, StateUnreadable, StorageFailed
from tap_forensics.storage.bucket import Bucket, Conflict, Stored
from tap_forensics.storage.open_items import all_read_until
from tap_forensics.storage.state import VERSION, Lease, State, decode, encode, new_lease
from tap_forensics.tap.quota import Quota
from tap_forensics.tap.windows import Window

# A holder that missed two renewals is probably dead, so the message should be delivered again.
_RENEWAL_SECONDS = 5.0
_SLOW_RENEWAL_SECONDS = 3.0
# Cloud Storage takes about one write a second to one object name, and retries beyond that:
# https://cloud.google.com/storage/quotas#objects
_BATCH_COMMIT_SECONDS = 1.0
_COMMIT_ATTEMPTS = 3
# Smaller differences do not matter, and the Date header has whole seconds.
_CLOCK_TOLERANCE = timedelta(seconds=5)
_JSON = "application/json"
_MARK = "tap-forensics"


class _LegacyState(msgspec.Struct):
    """The hand-over object. The published function reads `last_event_time` and does not write our mark."""

    last_event_time: str
    written_by: str = ""


@dataclass(frozen=True)
class FoundState:
    """The state at the start of a run. `generation` is that of the working state, 0 if there is none.

    `lease_left_seconds`: until its lease ends, by the bucket's clock; None without a lease, 0 or less if its
    run died. `clock`: the caller's, corrected by the bucket's clock if the two differ.
    """

    state: State
    generation: int
    clock: Clock
    lease_left_seconds: float | None = None

    @property
    def live(self) -> bool:
        """Whether another run holds the lease."""
        return self.lease_left_seconds is not None and self.lease_left_seconds > 0


def find_state(bucket: Bucket, location: StateLocation, clock: Clock, lease_seconds: int) -> FoundState:
    """Reads the working state, or before the first run the state that was there before (see `StateLocation`).
    `lease_seconds` is for a lease of version 1, which has no duration.

    Raises `StateUnreadable`, also if the working state is missing after a run, or `StorageFailed`.
    """
    stored, name = bucket.read(location.name), location.name
    if stored is None:
        if earlier := location.legacy_key or location.previous_key:
            stored, name = bucket.read(earlier), earlier
        _raise_if_missing(bucket, location, stored)
    clock = _correct_clock(clock, bucket.date)
    if stored is None:
        return FoundState(State(VERSION), 0, clock)
    state = decode(stored.data, f"gs://{bucket.name}/{name}", clock.now())
    left = lease_left_seconds(bucket, name, stored.generation, state, lease_seconds)
    return FoundState(state, stored.generation if name == location.name else 0, clock, left)


def lease_left_seconds(
    bucket: Bucket, name: str, generation: int, state: State, lease_seconds: int
) -> float | None:
    """Until the lease of a state object ends; 0 or less if its run died, None if there is no lease."""
    if not state.lease:
        return None
    # No age: another run has written the object since, so it is alive.
    return (state.lease.seconds or lease_seconds) - (bucket.age_seconds(name, generation) or 0.0)


def _raise_if_missing(bucket: Bucket, location: StateLocation, legacy: Stored | None) -> None:
    """After a run there is a working state, or somebody has deleted it: a first run finds no trace of one."""
    trace = None
    if legacy and is_marked(legacy.data):
        trace = f"it wrote gs://{bucket.name}/{location.legacy_key}"
    elif bucket.has_old_versions(location.name):
        trace = "the bucket keeps old versions of it"
    # Another first run may have written it in between: then the commit meets its lease.
    if trace and bucket.read(location.name) is None:
        raise StateUnreadable(
            f"the state object gs://{bucket.name}/{location.name} is missing, but this collector has run "
            f"here: {trace}. Nothing was changed. `tap-forensics state repair` restores it; "
            "`tap-forensics state reset` starts without it"
        )


def is_marked(data: bytes) -> bool:
    """Whether a hand-over object has our mark; the published function writes none."""
    try:
        return msgspec.json.decode(data, type=_LegacyState).written_by == _MARK
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def _correct_clock(clock: Clock, date: datetime | None) -> Clock:
    """Corrects a clock by the bucket's: a laptop's may be wrong, the bucket's is the same for all runs."""
    offset = date - clock.now() if date else timedelta()
    if abs(offset) <= _CLOCK_TOLERANCE:
        return clock
    return replace(clock, now=lambda: clock.now() + offset)


class StateStore:
    """One run's state. Any thread may change it inside `transaction`; commits happen one at a time.

    An upload does not block `transaction`. The lease ends LEASE_SECONDS after the last commit, by the
    bucket's clock; this run measures that with its monotonic clock, from before it sent the commit.
    """

    def __init__(self, bucket: Bucket, location: StateLocation, clock: Clock, lease_seconds: int) -> None:
        self._bucket, self.location, self.clock = bucket, location, clock
        self._lease_seconds = lease_seconds
        self._changes = threading.Lock()
        self._commits = threading.Lock()
        self._sent_at_seconds = clock.monotonic()
        self._commit_seconds = 0.0
        self._generation = 0
        self._state = State(VERSION)
        self._owner = self._run_id = ""
        self._quota: Quota | None = None
        self._lost: LeaseLost | None = None
        self.in_doubt = False
        self.dead_lease: Lease | None = None
        self.is_new_here = False

    def acquire(self, plan: Callable[[State, Lease | None], None]) -> None:
        """Takes the lease, also from a dead run, with a commit that contains the changes of `plan`.

        `plan` gets the state and the dead run's lease or None. Raises `LeaseHeld` if another run holds the
        lease, `StateUnreadable` or `StorageFailed`; then nothing is written.
        """
        found = find_state(self._bucket, self.location, self.clock, self._lease_seconds)
        self.clock = found.clock
        self._generation = found.generation
        if found.live:
            raise self._lease_held(found)
        self.dead_lease = found.state.lease
        # Version 1 did not mark its hand-over object.
        self.is_new_here = not found.generation or found.state.version != VERSION
        lease = new_lease(found.state, self.clock.now(), self._lease_seconds)
        self._owner, self._run_id = lease.owner, lease.run_id
        self._state = msgspec.structs.replace(found.state, version=VERSION, lease=lease)
        plan(self._state, self.dead_lease)
        try:
            self.commit()
        except LeaseLost:
            raise LeaseHeld("another run took the lease a moment ago") from None

    def _lease_held(self, found: FoundState) -> LeaseHeld:
        lease, left = found.state.lease, found.lease_left_seconds
        assert lease and left is not None  # noqa: S101 - `live` implies both
        seconds = lease.seconds or self._lease_seconds
        since_commit = seconds - left
        if since_commit <= min(seconds / 2, _renewal_seconds(seconds) + _SLOW_RENEWAL_SECONDS):
            return LeaseHeld(f"run {lease.run_id} is at work and holds the lease")
        return LeaseHeld(
            f"run {lease.run_id} holds the lease, and has missed its renewal: it may have died. "
            f"The lease ends in {left:.0f} s",
            missed_renewal=True,
        )

    @contextmanager
    def transaction(self) -> Iterator[State]:
        """The state, to read or change while no other thread does. Raises `LeaseLost` after a lost lease."""
        with self._changes:
            if self._lost:
                raise self._lost
            yield self._state

    def attach_quota(self, limits: dict[str, int | None]) -> Quota:
        """The call quota of the state; from now on each commit contains its counts."""
        with self._changes:
            self._quota = Quota(self._state.calls, limits)
        return self._quota

    @property
    def cursor(self) -> datetime | None:
        return self._state.last_event_time

    @property
    def lease(self) -> Lease:
        """This run's lease. Only between `acquire` and `release`."""
        lease = self._state.lease
        if lease is None:
            raise LeaseLost("the lease was released")
        return lease

    def commit(self) -> None:
        """Writes the state and renews the lease. Raises `LeaseLost` or `StorageFailed`."""
        with self._commits:
            self._write()

    def commit_if_due(self) -> None:
        """Commits after a batch, or leaves it to the next commit if the last one is very recent.

        Nothing depends on it: a run that takes over finds the objects by name.
        """
        if self._seconds_since_commit() >= min(_BATCH_COMMIT_SECONDS, self._lease_seconds / 6):
            self.commit()

    def renew_if_due(self) -> None:
        """Commits every few seconds, so that no other run takes over; a large state less often."""
        due = max(_renewal_seconds(self._lease_seconds), 10 * self._commit_seconds)
        if not self._lost and self._seconds_since_commit() >= min(due, self._lease_seconds / 3):
            self.commit()

    def ensure_lease(self) -> None:
        """Call before a batch is written: if the lease ran out, a commit checks that it is still ours.

        Raises `LeaseLost` or `StorageFailed`.
        """
        if self._lost:
            raise self._lost
        if self._seconds_since_commit() >= self._lease_seconds:
            self.commit()

    def announce(
        self,
        *,
        threats: Iterable[str] = (),
        campaigns: Iterable[str] = (),
        summaries: Iterable[str] = (),
        windows: Iterable[Window] = (),
    ) -> None:
        """Commits what is in flight, with what is requested next: if the run dies, these are suspects."""
        with self.transaction() as state:
            lease, delivered = self.lease, set(self.lease.campaigns)
            lease.asking = [*(name for name in lease.asking if name in state.backlog), *threats]
            open_campaigns = (name for name in lease.asking_campaigns if name not in delivered)
            lease.asking_campaigns = [*open_campaigns, *campaigns]
            open_summaries = (name for name in lease.asking_summaries if name in state.summaries)
            lease.asking_summaries = [*open_summaries, *summaries]
            lease.reading = [(window.start, window.end) for window in windows]
        self.commit()

    def nothing_in_flight(self) -> None:
        """All calls are over. What was announced and not requested is no suspect if the run dies later."""
        with self.transaction():
            self.lease.asking, self.lease.asking_campaigns, self.lease.asking_summaries = [], [], []

    def answered(self, name: str) -> None:
        """The threat or campaign is no longer in flight, and did not kill the run."""
        with self.transaction():
            for asking in (self.lease.asking, self.lease.asking_campaigns, self.lease.asking_summaries):
                if name in asking:
                    asking.remove(name)

    def release(self) -> None:
        """Releases the lease with the last commit. If a batch is in doubt, the lease stays:
        the run that takes over finds its object. Raises `LeaseLost` or `StorageFailed`.
        """
        if not self.in_doubt:
            with self._changes:
                self._state.last_run_id, self._state.last_owner = self.lease.run_id, self._owner
                self._state.lease = None
        try:
            self.commit()
        except LeaseLost:
            if not self._was_released():
                raise
            self._lost = None

    def _was_released(self) -> bool:
        """Whether a release landed although its response was lost. Another run may hold the lease since."""
        stored = self._bucket.read(self.location.name)
        if stored is None:
            return False
        state = decode(stored.data, f"gs://{self._bucket.name}/{self.location.name}", self.clock.now())
        # A run that takes over keeps the dead run's ID; only after a release there is a later one.
        return state.last_owner == self._owner or state.last_run_id > self._run_id

    def write_legacy_state(self) -> bool:
        """Writes the hand-over object, so that a return to the published function loses no window. Call it
        before `release`.

        Returns whether the published function has written the object since our last run. Raises
        `StorageFailed` or `LeaseLost`.
        """
        until = all_read_until(self._state)
        if self.location.legacy_key is None or until is None:
            return False
        found = self._bucket.read(self.location.legacy_key)
        # After the read: a zombie whose lease ran out must not write an older time.
        self.ensure_lease()
        data = msgspec.json.encode(_LegacyState(until.isoformat(), _MARK))
        if found is None or found.data != data:
            with suppress(Conflict):  # another writer was faster
                self._bucket.replace(self.location.legacy_key, data, _JSON, found.generation if found else 0)
        unmarked = found is not None and not is_marked(found.data)
        self.is_new_here, expected = False, self.is_new_here
        return unmarked and not expected

    def _write(self) -> None:
        with self._changes:
            if self._quota:
                self._state.calls = self._quota.dump()
            data = encode(self._state)
        sent_at = self.clock.monotonic()
        for _ in range(_COMMIT_ATTEMPTS):
            try:
                self._generation = self._bucket.replace(self.location.name, data, _JSON, self._generation)
            except Conflict as conflict:
                self._generation = self._own_generation(conflict.stored)
                continue
            self._sent_at_seconds, self._commit_seconds = sent_at, self.clock.monotonic() - sent_at
            return
        raise StorageFailed(
            f"gs://{self._bucket.name}/{self.location.name} changes faster than it can be written"
        )

    def _own_generation(self, stored: Stored | None) -> int:
        """The generation if an earlier commit of this run, without a response, wrote it. Else `LeaseLost`."""
        where = f"gs://{self._bucket.name}/{self.location.name}"
        if stored:
            state = decode(stored.data, where, self.clock.now())
            if state.lease and state.lease.owner == self._owner:
                return stored.generation
        self._lost = LeaseLost(f"{where} was changed by another run, which holds the lease now")
        raise self._lost from None

    def _seconds_since_commit(self) -> float:
        return self.clock.monotonic() - self._sent_at_seconds


def _renewal_seconds(lease_seconds: float) -> float:
    return min(_RENEWAL_SECONDS, lease_seconds / 3)
