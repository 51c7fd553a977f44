"""The state while this run holds its lease: read, committed with a generation precondition, given back."""

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

# A holder that missed two of these is probably dead: the next delivery of the message is worth waiting for.
_RENEWAL_SECONDS = 5.0
_SLOW_RENEWAL_SECONDS = 3.0
# Cloud Storage takes about one write a second to one object name, and retries beyond that:
# https://cloud.google.com/storage/quotas#objects
_BETWEEN_BATCH_COMMITS_SECONDS = 1.0
_COMMIT_ATTEMPTS = 3
# Less is not worth a message, and the Date header has whole seconds.
_CLOCK_TOLERANCE = timedelta(seconds=5)
_JSON = "application/json"
_MARK = "tap-forensics"


class _LegacyState(msgspec.Struct):
    """The published function reads `last_event_time`; it ignores our mark, and does not write it."""

    last_event_time: str
    written_by: str = ""


@dataclass(frozen=True)
class FoundState:
    """The state as a run would begin with it. `generation` is the working object's, 0 if there is none.

    `lease_left_seconds`: how long its lease holds, by the bucket's clock; None without a lease, 0 or less if
    its run died. `clock`: the given one, set right by the bucket's if the two differ.
    """

    state: State
    generation: int
    clock: Clock
    lease_left_seconds: float | None = None

    @property
    def live(self) -> bool:
        """Whether another run is at work."""
        return self.lease_left_seconds is not None and self.lease_left_seconds > 0


def find_state(bucket: Bucket, location: StateLocation, clock: Clock, lease_seconds: int) -> FoundState:
    """Reads the working state, or what there was before the first run. `lease_seconds` is for a lease of
    version 1, which does not tell.

    Raises `StateUnreadable`, also if the working state is gone, or `StorageFailed`.
    """
    stored, name = bucket.read(location.name), location.name
    before = location.legacy_key or location.previous_key
    if stored is None and before:
        stored, name = bucket.read(before), before
        if stored and name == location.legacy_key:
            _refuse_marked(stored.data, bucket, location)
    clock = _correct_clock(clock, bucket.date)
    if stored is None:
        return FoundState(State(VERSION), 0, clock)
    state = decode(stored.data, f"gs://{bucket.name}/{name}", clock.now())
    left = lease_left_seconds(bucket, name, stored.generation, state, lease_seconds)
    return FoundState(state, stored.generation if name == location.name else 0, clock, left)


def lease_left_seconds(
    bucket: Bucket, name: str, generation: int, state: State, lease_seconds: int
) -> float | None:
    """How long the lease of a state object holds; 0 or less if its run died, None if there is no lease."""
    if not state.lease:
        return None
    # No age: somebody wrote in between, and so is at work.
    return (state.lease.seconds or lease_seconds) - (bucket.age_seconds(name, generation) or 0.0)


def _refuse_marked(data: bytes, bucket: Bucket, location: StateLocation) -> None:
    if is_marked(data):
        raise StateUnreadable(
            f"the state object gs://{bucket.name}/{location.name} is gone, though this collector has run "
            f"here: gs://{bucket.name}/{location.legacy_key} is its own. Nothing was changed. "
            "`tap-forensics state repair` restores it; `tap-forensics state reset` starts anew"
        )


def is_marked(legacy_key: bytes) -> bool:
    """Whether the hand-over object has our mark; the published function writes it without."""
    try:
        return msgspec.json.decode(legacy_key, type=_LegacyState).written_by == _MARK
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def _correct_clock(clock: Clock, date: datetime | None) -> Clock:
    """The clock of a laptop may be wrong; the bucket's is the same for all runs."""
    offset = date - clock.now() if date else timedelta()
    if abs(offset) <= _CLOCK_TOLERANCE:
        return clock
    return replace(clock, now=lambda: clock.now() + offset)


class StateStore:
    """One run's state. Any thread may change it inside `changing`; commits happen one at a time.

    No lock that `changing` needs is held over an upload. The lease holds by the bucket's clock, for
    LEASE_SECONDS since the last commit; this run measures them with its monotonic clock, from the moment
    before it sent that commit.
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
        """Takes the lease, a dead run's too, with a commit that contains what `plan` made of the state.

        `plan` is given the state and the dead run's lease, if there is one. Raises `LeaseHeld` while another
        run is at work, `StateUnreadable` or `StorageFailed`; nothing is written then.
        """
        found = find_state(self._bucket, self.location, self.clock, self._lease_seconds)
        self.clock = found.clock
        self._generation = found.generation
        if found.live:
            raise self._busy(found)
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

    def _busy(self, found: FoundState) -> LeaseHeld:
        lease, left = found.state.lease, found.lease_left_seconds
        assert lease and left is not None  # noqa: S101 - what `live` means
        seconds = lease.seconds or self._lease_seconds
        silent = seconds - left
        if silent <= min(seconds / 2, _renewal_seconds(seconds) + _SLOW_RENEWAL_SECONDS):
            return LeaseHeld(f"run {lease.run_id} is at work and holds the lease")
        return LeaseHeld(
            f"run {lease.run_id} holds the lease, and has missed its renewal: it may have died. "
            f"The lease ends in {left:.0f} s",
            missed_renewal=True,
        )

    @contextmanager
    def transaction(self) -> Iterator[State]:
        """The state, to look at or to change, while no other thread does. Raises `LeaseLost` once it is."""
        with self._changes:
            if self._lost:
                raise self._lost
            yield self._state

    def attach_quota(self, limits: dict[str, int | None]) -> Quota:
        """The call ledger as the state has it; from now on each commit takes its count along."""
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
        """After a batch: commits, unless it did a moment ago; the next commit holds it then.

        Nothing hangs on it: a takeover finds the objects by name.
        """
        if self._seconds_since_commit() >= min(_BETWEEN_BATCH_COMMITS_SECONDS, self._lease_seconds / 6):
            self.commit()

    def renew_if_due(self) -> None:
        """Commits every few seconds, so that no other run takes over meanwhile; a large state less often."""
        due = max(_renewal_seconds(self._lease_seconds), 10 * self._commit_seconds)
        if not self._lost and self._seconds_since_commit() >= min(due, self._lease_seconds / 3):
            self.commit()

    def ensure_lease(self) -> None:
        """Before a batch is written: a lease that ran out is ours only if the state says so still.

        Raises `LeaseLost`.
        """
        if self._lost:
            raise self._lost
        if self._seconds_since_commit() >= self._lease_seconds:
            self.commit()

    def announce(self, threats: Iterable[str] = (), windows: Iterable[Window] = ()) -> None:
        """Commits what is about to be asked for, beside what is in flight still: if the run dies, these are
        suspects.
        """
        with self.transaction() as state:
            before_sleep = [threat_id for threat_id in self.lease.asking if threat_id in state.backlog]
            self.lease.asking = [*before_sleep, *threats]
            self.lease.reading = [(window.start, window.end) for window in windows]
        self.commit()

    def answered(self, threat_id: str) -> None:
        """The run outlived this threat: it is in flight no more."""
        with self.transaction():
            if threat_id in self.lease.asking:
                self.lease.asking.remove(threat_id)

    def release(self) -> None:
        """Releases the lease with the last commit; not if a batch is in doubt: its object is found by the
        run that takes over.
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
        """Whether the commit landed whose response was lost; another run may hold the lease since."""
        stored = self._bucket.read(self.location.name)
        where = f"gs://{self._bucket.name}/{self.location.name}"
        if stored is None:
            return False
        state = decode(stored.data, where, self.clock.now())
        # A run that takes over keeps the dead run's id; only after a release is there a later one.
        return state.last_owner == self._owner or state.last_run_id > self._run_id

    def write_legacy_state(self) -> bool:
        """The published function's own object, so that going back to it loses no window. Before `release`.

        Returns whether the published function has written it since our last run. Raises `StorageFailed` or
        `LeaseLost`.
        """
        until = all_read_until(self._state)
        if self.location.legacy_key is None or until is None:
            return False
        found = self._bucket.read(self.location.legacy_key)
        # After the read: whoever slept through the lease until now must not put an older time back.
        self.ensure_lease()
        data = msgspec.json.encode(_LegacyState(until.isoformat(), _MARK))
        if found is None or found.data != data:
            with suppress(Conflict):  # another run was faster, and wrote its own
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
        """Of an earlier commit of this run whose response never came; anything else is another run's."""
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
