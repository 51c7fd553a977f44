"""The call quota: calls to each of TAP's pools in the last 24 hours, limits learned from 429 responses.

TAP throttles the Forensics API by the type of the request (Proofpoint's documentation), each type apart:

    forensics            by threatId, the campaign's reports included
    threat_forensics     by threatId alone
    campaign_forensics   by campaignId

A 429 closes one pool. The limit that it teaches is the number of calls answered in the last 24 hours. While
fewer calls than that were answered, more are made; beyond it, one call at a time probes for a higher limit.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, TypeVar

import msgspec

from tap_forensics.config.settings import TapSettings
from tap_forensics.errors import QuotaExceeded

SIEM = "siem"
FORENSICS = "forensics"
THREAT_FORENSICS = "threat_forensics"
CAMPAIGN_FORENSICS = "campaign_forensics"
SUMMARIES = "summaries"
FORENSICS_POOLS = (FORENSICS, THREAT_FORENSICS, CAMPAIGN_FORENSICS)
POOLS = (SIEM, *FORENSICS_POOLS, SUMMARIES)
# TAP_FORENSICS_DAILY_LIMIT is for all calls by threatId: TAP may count both types together.
_BY_THREAT = (FORENSICS, THREAT_FORENSICS)

T = TypeVar("T")

# TAP throttles by a rolling 24 h (integrators' reading of Proofpoint's table). Ten-minute buckets keep the
# state small; a bucket counts until its last second is a day old, so the count is never too low.
_BUCKET_SECONDS = 600
_ROLLING_SECONDS = 24 * 3600
# From the start of the run that was limited. An hourly run may start a little early.
_PROBE_AFTER = timedelta(minutes=55)
_MAX_PROBE_AFTER = timedelta(days=1)
# Items that failed before, in any run, may use a tenth of the calls that are left when a run starts.
_RETRY_DIVISOR = 10


_Count = Annotated[int, msgspec.Meta(ge=0)]


class Pool(msgspec.Struct, omit_defaults=True):
    """One pool in the state: bucket number → calls. `refused`: those of them that TAP answered with 429.

    `limited_at`: start of the last run in which 429 closed it. `learned`: the limit that this taught.
    `refusals`: how often in a row.
    """

    buckets: dict[int, _Count] = {}
    limited_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    learned: _Count | None = None
    refusals: _Count = 0
    refused: dict[int, _Count] = {}

    def used(self, now: datetime) -> int:
        """Calls that still count."""
        return sum(counted_buckets(self.buckets, now).values())

    def answered(self, now: datetime) -> int:
        """Of these, calls without a 429: only these are compared with a learned limit."""
        return max(0, self.used(now) - sum(counted_buckets(self.refused, now).values()))

    def probe_after(self) -> timedelta:
        """How long after the last 429 one call may probe: an hour, and longer if the limit was confirmed."""
        if not self.learned:
            return _PROBE_AFTER
        factor: int = 2 ** min(max(0, self.refusals - 1), 5)
        return min(_PROBE_AFTER * factor, _MAX_PROBE_AFTER)


class PoolStatus(Enum):
    """What a run may do with a pool whose limit is only known from a 429."""

    ALLOWED = "calls may be made"
    PROBE = "one call may test whether the limit has passed"
    BLOCKED = "no call now, because TAP answered 429"


def daily_limits(settings: TapSettings) -> dict[str, int | None]:
    """The configured limit of each pool; None if TAP's 429 responses must tell it."""
    return {
        SIEM: settings.siem_daily_limit,
        FORENSICS: settings.forensics_daily_limit,
        THREAT_FORENSICS: settings.forensics_daily_limit,
        CAMPAIGN_FORENSICS: settings.campaign_forensics_daily_limit,
        SUMMARIES: None,
    }


class Quota:
    """Counts calls; thread-safe. `limits` maps a pool to its calls per 24 h; None or absent: not configured.

    `made` and `refused` count this run's calls and 429 responses.
    """

    def __init__(self, pools: dict[str, Pool], limits: dict[str, int | None]) -> None:
        self._pools = {name: pools.get(name, Pool()) for name in POOLS}
        self._limits = {name: limits.get(name) for name in POOLS}
        self._lock = threading.Lock()
        self.made = dict.fromkeys(POOLS, 0)
        self.refused = dict.fromkeys(POOLS, 0)
        self._retried = dict.fromkeys(POOLS, 0)

    def reserve(self, name: str, now: datetime) -> None:
        """Counts one call before it is made. Raises `QuotaExceeded` if the configured limit is reached."""
        with self._lock:
            pool, limit = self._pools[name], self._limits[name]
            pool.buckets = counted_buckets(pool.buckets, now)
            if limit is not None and self._used(name, now) >= limit:
                raise QuotaExceeded(f"all {limit} {name} calls of the last 24 hours are used")
            _count(pool.buckets, now)
            self.made[name] += 1

    def _used(self, name: str, now: datetime) -> int:
        """Calls that count against the configured limit."""
        sharing = _BY_THREAT if name in _BY_THREAT else (name,)
        return sum(self._pools[other].used(now) for other in sharing)

    def reserve_retries(self, name: str, wanted: int, now: datetime) -> int:
        """Reserves up to `wanted` calls for failed items, at least one per run; returns how many."""
        left = self.left(name, now)
        if left is None:
            return wanted
        if self.status(name, now) is PoolStatus.PROBE:
            left = max(1, left)
        with self._lock:
            most = max(1, (left + self.made[name]) // _RETRY_DIVISOR)
            granted = max(0, min(wanted, left, most - self._retried[name]))
            self._retried[name] += granted
        return granted

    def left(self, name: str, now: datetime) -> int | None:
        """Calls left under the limit, configured or learned; None if none is known."""
        with self._lock:
            pool, limit = self._pools[name], self._limits[name]
            if limit is not None:
                return max(0, limit - self._used(name, now))
            return None if pool.learned is None else max(0, pool.learned - pool.answered(now))

    def limit(self, name: str) -> int | None:
        """The limit, configured or learned; None if none is known."""
        with self._lock:
            configured = self._limits[name]
            return self._pools[name].learned if configured is None else configured

    def count_429(self, name: str, now: datetime) -> None:
        with self._lock:
            pool = self._pools[name]
            pool.refused = counted_buckets(pool.refused, now)
            _count(pool.refused, now)
            self.refused[name] += 1

    def block(self, name: str, run_started: datetime) -> None:
        """Records that 429 ended this run's calls; with a configured limit nothing is recorded."""
        with self._lock:
            pool = self._pools[name]
            if self._limits[name] is not None:
                self._pools[name] = _unlimited(pool)
                return
            answered = pool.answered(run_started)
            pool.learned = answered if pool.learned is None else min(answered, pool.learned)
            pool.limited_at, pool.refusals = run_started, pool.refusals + 1

    def unblock(self, name: str, now: datetime) -> None:
        """Forgets the learned limit, if this run's answered calls went beyond it."""
        with self._lock:
            pool = self._pools[name]
            if pool.learned is None or pool.answered(now) > pool.learned:
                self._pools[name] = _unlimited(pool)

    def has_learned(self, name: str) -> bool:
        """Whether a 429 has taught the limit."""
        with self._lock:
            return self._limits[name] is None and self._pools[name].learned is not None

    def status(self, name: str, now: datetime) -> PoolStatus:
        with self._lock:
            pool, limit = self._pools[name], self._limits[name]
        if pool.limited_at is None or limit is not None or pool.limited_at > now:
            return PoolStatus.ALLOWED
        if now - pool.limited_at < _PROBE_AFTER:
            return PoolStatus.BLOCKED
        if self.left(name, now):
            return PoolStatus.ALLOWED
        return PoolStatus.PROBE if now - pool.limited_at >= pool.probe_after() else PoolStatus.BLOCKED

    def dump(self) -> dict[str, Pool]:
        """A copy for the state."""
        with self._lock:
            return {
                name: msgspec.structs.replace(pool, buckets=dict(pool.buckets), refused=dict(pool.refused))
                for name, pool in self._pools.items()
            }


def counted_buckets(buckets: dict[int, int], now: datetime) -> dict[int, int]:
    """The buckets whose calls still count."""
    return {
        start: calls
        for start, calls in buckets.items()
        # Buckets far in the future are from a clock that was wrong; they must not block the pool.
        if abs(start * _BUCKET_SECONDS - now.timestamp() + _BUCKET_SECONDS) < _ROLLING_SECONDS
    }


def counts_until(bucket: int) -> datetime:
    """When the calls of a bucket no longer count."""
    return datetime.fromtimestamp((bucket + 1) * _BUCKET_SECONDS + _ROLLING_SECONDS, UTC)


def before_the_end(not_failed: list[T], retries: list[T], left: int | None) -> list[T]:
    """All items in order: retries last, but before the calls that are left are used up.

    Without that, new items could use all calls of every day.
    """
    first = len(not_failed) if left is None else max(1, left - len(retries))
    return not_failed[:first] + retries + not_failed[first:]


def _unlimited(pool: Pool) -> Pool:
    return Pool(pool.buckets, refused=pool.refused)


def _count(buckets: dict[int, int], now: datetime) -> None:
    buckets[_bucket(now)] = buckets.get(_bucket(now), 0) + 1


def _bucket(now: datetime) -> int:
    return int(now.timestamp()) // _BUCKET_SECONDS
