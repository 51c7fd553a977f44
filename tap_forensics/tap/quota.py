"""The call quota: calls to each of TAP's pools in the last 24 hours, limits learned from 429 responses."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated

import msgspec

from tap_forensics.errors import QuotaExceeded

SIEM = "siem"
FORENSICS = "forensics"

# TAP throttles by a rolling 24 h (integrators' reading of Proofpoint's table). Ten-minute buckets keep the
# state small; a bucket counts until its last second is a day old, so the count is never too low.
_BUCKET_SECONDS = 600
_ROLLING_SECONDS = 24 * 3600
# From the start of the run that was limited. An hourly run may start a little early.
_PROBE_AFTER = timedelta(minutes=55)
# Items that failed before, in any run, may use a tenth of the calls that are left when a run starts.
_RETRY_DIVISOR = 10


class Pool(msgspec.Struct, omit_defaults=True):
    """One pool in the state: bucket number → calls. `limited_at`: start of the last run that 429 ended."""

    buckets: dict[int, Annotated[int, msgspec.Meta(ge=0)]] = {}
    limited_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class PoolStatus(Enum):
    """What a run may do with a pool whose limit is only known from a 429."""

    ALLOWED = "calls may be made"
    PROBE = "one call may test whether the limit has passed"
    BLOCKED = "no call until an hour after the last 429"


class Quota:
    """Counts calls; thread-safe. `limits` maps a pool to its calls per 24 h, or None.

    `made` and `refused` count this run's calls and 429 responses.
    """

    def __init__(self, pools: dict[str, Pool], limits: dict[str, int | None]) -> None:
        self._pools = {name: pools.get(name, Pool()) for name in limits}
        self._limits = limits
        self._lock = threading.Lock()
        self.made = dict.fromkeys(limits, 0)
        self.refused = dict.fromkeys(limits, 0)
        self._retried = dict.fromkeys(limits, 0)

    def reserve(self, name: str, now: datetime) -> None:
        """Counts one call before it is made. Raises `QuotaExceeded` if the configured limit is reached."""
        with self._lock:
            pool, limit = self._pools[name], self._limits[name]
            bucket = _bucket(now)
            pool.buckets = counted_buckets(pool, now)
            if limit is not None and sum(pool.buckets.values()) >= limit:
                raise QuotaExceeded(f"all {limit} {name} calls of the last 24 hours are used")
            pool.buckets[bucket] = pool.buckets.get(bucket, 0) + 1
            self.made[name] += 1

    def reserve_retries(self, name: str, wanted: int, now: datetime) -> int:
        """Reserves up to `wanted` calls for failed items, at least one per run; returns how many."""
        left = self.left(name, now)
        if left is None:
            return wanted
        with self._lock:
            most = max(1, (left + self.made[name]) // _RETRY_DIVISOR)
            granted = max(0, min(wanted, left, most - self._retried[name]))
            self._retried[name] += granted
        return granted

    def left(self, name: str, now: datetime) -> int | None:
        """Calls left under the configured limit; None if none is configured."""
        with self._lock:
            limit = self._limits[name]
            used = sum(counted_buckets(self._pools[name], now).values())
        return None if limit is None else max(0, limit - used)

    def count_429(self, name: str) -> None:
        with self._lock:
            self.refused[name] += 1

    def block(self, name: str, run_started: datetime) -> None:
        """Records that 429 ended this run's calls; with a configured limit nothing is recorded."""
        with self._lock:
            self._pools[name].limited_at = None if self._limits[name] is not None else run_started

    def unblock(self, name: str) -> None:
        with self._lock:
            self._pools[name].limited_at = None

    def status(self, name: str, now: datetime) -> PoolStatus:
        with self._lock:
            limited_at = self._pools[name].limited_at
        if limited_at is None or self._limits[name] is not None or limited_at > now:
            return PoolStatus.ALLOWED
        return PoolStatus.PROBE if now - limited_at >= _PROBE_AFTER else PoolStatus.BLOCKED

    def dump(self) -> dict[str, Pool]:
        """A copy for the state."""
        with self._lock:
            return {n: Pool(dict(p.buckets), p.limited_at) for n, p in self._pools.items()}


def counted_buckets(pool: Pool, now: datetime) -> dict[int, int]:
    """The buckets whose calls still count."""
    return {
        start: calls
        for start, calls in pool.buckets.items()
        # Buckets far in the future are from a clock that was wrong; they must not block the pool.
        if abs(start * _BUCKET_SECONDS - now.timestamp() + _BUCKET_SECONDS) < _ROLLING_SECONDS
    }


def counts_until(bucket: int) -> datetime:
    """When the calls of a bucket no longer count."""
    return datetime.fromtimestamp((bucket + 1) * _BUCKET_SECONDS + _ROLLING_SECONDS, UTC)


def _bucket(now: datetime) -> int:
    return int(now.timestamp()) // _BUCKET_SECONDS
