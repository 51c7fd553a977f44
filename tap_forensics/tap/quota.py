"""How many calls each of TAP's pools has seen in the last 24 hours, and what it said of its limit."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated

import msgspec

from tap_forensics.errors import QuotaExceeded

SIEM = "siem"
FORENSICS = "forensics"

# Throttling is by a rolling 24 h (read off Proofpoint's table by integrators). Ten-minute buckets keep the
# state small; a bucket counts until its last second is a day old, so the ledger errs on the safe side.
_BUCKET_SECONDS = 600
_ROLLING_SECONDS = 24 * 3600
# Counted from a run's start; the next run of an hourly schedule, a little early perhaps, is an hour later.
_ASK_AGAIN = timedelta(minutes=55)
# What failed before, in this run or an earlier one, may use a tenth of the calls that a run begins with.
_RETRY_SHARE = 10


class Pool(msgspec.Struct, omit_defaults=True):
    """One pool as the state keeps it: bucket number → calls; when a 429 last ended a run's calls."""

    buckets: dict[int, Annotated[int, msgspec.Meta(ge=0)]] = {}
    limited_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class PoolStatus(Enum):
    """What a run may do with a pool whose limit only a 429 told."""

    ALLOWED = "open"
    PROBE = "one call to see whether the limit has passed"
    BLOCKED = "closed until an hour after the last 429"


class Quota:
    """Counts calls; any thread may count. `limits` maps a pool to its calls per 24 h, or None."""

    def __init__(self, pools: dict[str, Pool], limits: dict[str, int | None]) -> None:
        self._pools = {name: pools.get(name, Pool()) for name in limits}
        self._limits = limits
        self._lock = threading.Lock()
        self.made = dict.fromkeys(limits, 0)
        self.refused = dict.fromkeys(limits, 0)
        self._retried = dict.fromkeys(limits, 0)

    def reserve(self, name: str, now: datetime) -> None:
        """Counts one call, before it is made. Raises `QuotaSpent` where the configured limit is reached."""
        with self._lock:
            pool, limit = self._pools[name], self._limits[name]
            bucket = _bucket(now)
            pool.buckets = counted_buckets(pool, now)
            if limit is not None and sum(pool.buckets.values()) >= limit:
                raise QuotaExceeded(f"all {limit} {name} calls of the last 24 hours are used")
            pool.buckets[bucket] = pool.buckets.get(bucket, 0) + 1
            self.made[name] += 1

    def reserve_retries(self, name: str, wanted: int, now: datetime) -> int:
        """How many calls may be made for what failed before, of so many wanted; at least one a run."""
        left = self.left(name, now)
        with self._lock:
            most = wanted if left is None else max(1, (left + self.made[name]) // _RETRY_SHARE)
            granted = max(0, min(wanted, most - (0 if left is None else self._retried[name])))
            self._retried[name] += granted
        return granted

    def left(self, name: str, now: datetime) -> int | None:
        """Calls that the configured limit leaves; None where none is configured."""
        with self._lock:
            limit = self._limits[name]
            used = sum(counted_buckets(self._pools[name], now).values())
        return None if limit is None else max(0, limit - used)

    def count_429(self, name: str) -> None:
        with self._lock:
            self.refused[name] += 1

    def block(self, name: str, run_started: datetime) -> None:
        """Remembers that 429 ended this run's calls; a configured limit makes that void."""
        with self._lock:
            self._pools[name].limited_at = None if self._limits[name] is not None else run_started

    def unblock(self, name: str) -> None:
        with self._lock:
            self._pools[name].limited_at = None

    def status(self, name: str, now: datetime) -> PoolStatus:
        with self._lock:
            met = self._pools[name].limited_at
        if met is None or self._limits[name] is not None or met > now:
            return PoolStatus.ALLOWED
        return PoolStatus.PROBE if now - met >= _ASK_AGAIN else PoolStatus.BLOCKED

    def dump(self) -> dict[str, Pool]:
        """A copy for the state."""
        with self._lock:
            return {n: Pool(dict(p.buckets), p.limited_at) for n, p in self._pools.items()}


def counted_buckets(pool: Pool, now: datetime) -> dict[int, int]:
    """The buckets whose calls count still."""
    return {
        start: calls
        for start, calls in pool.buckets.items()
        # A clock that was far ahead must not close the pool until then.
        if abs(start * _BUCKET_SECONDS - now.timestamp() + _BUCKET_SECONDS) < _ROLLING_SECONDS
    }


def counts_until(bucket: int) -> datetime:
    """When the calls of a bucket come back."""
    return datetime.fromtimestamp((bucket + 1) * _BUCKET_SECONDS + _ROLLING_SECONDS, UTC)


def _bucket(now: datetime) -> int:
    return int(now.timestamp()) // _BUCKET_SECONDS
