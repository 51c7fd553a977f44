"""The state document: cursor, backlog, gaps, what was collected, calls made, and the running run's lease.

    {"version": 1,
     "last_event_time": "2026-11-21T20:59:00Z",   the cursor, where the published function keeps it
     "backlog":   {threatId: {"priority": 1, "first_seen": …, "campaign": …, "attempts": …, …}},
     "gaps":      [{"start": …, "end": …, "since": …, "attempts": …}],  intervals read in vain so far
     "stalls":    runs in a row that found the API down at this cursor
     "silent":    runs in a row to which the API gave no answer at all
     "collected": {threatId: epoch seconds},      not asked for again within DEDUP_HOURS
     "calls":     {"siem": {"buckets": {…}}, …},  the call ledger
     "lost":      [{"start": …, "end": …, "why": …}],  the latest intervals that could never be read
     "lease":     {"run_id": …, "owner": …, "until": …, "started": …, "batches": 2, "campaigns": […],
                  "event_batches": 3}}

Values only; `held.py` reads and commits them.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

from tap_forensics.clock import parse_iso, whole_second
from tap_forensics.errors import StateUnreadable
from tap_forensics.ledger import Pool
from tap_forensics.windows import Window, around

VERSION = 1
RUN_ID_FORMAT = "%Y%m%d_%H%M%S"
_LOST_KEPT = 50
_EAGER_ATTEMPTS = 3
_BETWEEN_ATTEMPTS = timedelta(minutes=55)
_LEASE_AT_MOST = timedelta(hours=1)
_CLOCK_SKEW = timedelta(hours=1)
_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Threat(msgspec.Struct, omit_defaults=True):
    """One threat waiting for its forensics; a lower `priority` goes first."""

    priority: int
    first_seen: Moment
    campaign: str | None = None
    attempts: Count = 0
    failing_since: Moment | None = None

    def turn(self) -> tuple[bool, int, datetime]:
        """Sorts the backlog: what failed before lets the rest go first, then priority, then age."""
        return (self.attempts > 0, self.priority, self.first_seen)


class Gap(msgspec.Struct, omit_defaults=True):
    """An interval that could not be read yet; `tried` is when it was asked for last."""

    start: Moment
    end: Moment
    since: Moment
    attempts: Count = 0
    tried: Moment | None = None

    def due(self, now: datetime) -> bool:
        """Whether this run shall ask: in an hourly schedule each does, in a closer one not for ever."""
        return self.attempts < _EAGER_ATTEMPTS or self.tried is None or now - self.tried >= _BETWEEN_ATTEMPTS

    def window(self) -> Window:
        return Window(self.start, self.end)


class Lost(msgspec.Struct):
    """An interval that will not be read, and why."""

    start: Moment
    end: Moment
    why: str


class Lease(msgspec.Struct):
    """The running run. `batches`, `campaigns`, `event_batches` are what it has written and committed."""

    run_id: str
    owner: str
    until: Moment
    started: Moment
    batches: Count = 0
    campaigns: list[str] = []
    event_batches: Count = 0


class State(msgspec.Struct, omit_defaults=True):
    """The whole document, as in the module's head."""

    version: int
    last_event_time: Moment | None = None
    last_run_id: str = ""
    lease: Lease | None = None
    stalls: Count = 0
    silent: Count = 0
    gaps: list[Gap] = []
    lost: list[Lost] = []
    calls: dict[str, Pool] = {}
    backlog: dict[str, Threat] = {}
    collected: dict[str, Count] = {}


def encode(state: State) -> bytes:
    return msgspec.json.encode(state)


def decode(data: bytes, where: str, now: datetime) -> State:
    """A state from our document or from the published function's `{"last_event_time": …}`.

    Raises `StateUnreadable`, naming `where` and the remedy, for anything else, and for times so far ahead
    that nothing would ever be collected again.
    """
    try:
        state = _understood(data)
        _check(state, now)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise StateUnreadable(
            f"the state object {where} cannot be used ({error}); nothing was changed. "
            "Bring back an earlier version of the object, or delete it to start from LOOKBACK_HOURS; "
            "`tap-forensics state repair` does the first, or builds one that loses nothing"
        ) from None
    return state


def _understood(data: bytes) -> State:
    document = msgspec.json.decode(data)
    if not isinstance(document, dict):
        raise TypeError("it is not a JSON object")
    return _ours(document, data) if "version" in document else _taken_over(document)


def _taken_over(document: dict[str, Any]) -> State:
    moment = document.get("last_event_time")
    if not isinstance(moment, str):
        raise TypeError("last_event_time is not a text")
    return State(VERSION, last_event_time=parse_iso(moment))


def _ours(document: dict[str, Any], data: bytes) -> State:
    version = document["version"]
    if version != VERSION or isinstance(version, bool):
        shown = version if isinstance(version, int) else "not a number"
        raise ValueError(f"its version is {shown}, this program writes {VERSION}: deploy the newer program")
    return msgspec.json.decode(data, type=State)


def _check(state: State, now: datetime) -> None:
    lease = state.lease
    run_ids = [state.last_run_id] if state.last_run_id else []
    moments = {
        "a run id": [_moment(run_id) for run_id in [*run_ids, *([lease.run_id] if lease else [])]],
        "last_event_time": [state.last_event_time] if state.last_event_time else [],
        "the lease": [lease.started, lease.until - _LEASE_AT_MOST] if lease else [],
        "a gap": [moment for gap in state.gaps for moment in (gap.start, gap.end)],
    }
    for what, found in moments.items():
        if any(not _EARLIEST <= moment <= now + _CLOCK_SKEW for moment in found):
            raise ValueError(f"{what} lies in the future, or before there was such an API")


def _moment(run_id: str) -> datetime:
    return datetime.strptime(run_id, RUN_ID_FORMAT).replace(tzinfo=UTC)


def new_lease(state: State, now: datetime, lease_seconds: int) -> Lease:
    """A dead run's id is taken on, so that its objects are found; a new id is always later than the last."""
    until = now + timedelta(seconds=lease_seconds)
    owner = secrets.token_hex(8)
    if state.lease:
        dead = state.lease
        return msgspec.structs.replace(dead, owner=owner, until=until, campaigns=list(dead.campaigns))
    return Lease(_run_id(state.last_run_id, now), owner, until, whole_second(now))


def _run_id(last: str, now: datetime) -> str:
    this_second = now.strftime(RUN_ID_FORMAT)
    if last < this_second:
        return this_second
    return (_moment(last) + timedelta(seconds=1)).strftime(RUN_ID_FORMAT)


def forget(state: State, now: datetime, dedup_hours: int) -> None:
    """Drops what was collected longer ago than `dedup_hours`, but never what this run collected."""
    started = state.lease.started if state.lease else now
    oldest = min(now - timedelta(hours=dedup_hours), started).timestamp()
    state.collected = {threat: at for threat, at in state.collected.items() if at >= oldest}


def add_threat(state: State, threat_id: str, seen: Threat) -> bool:
    """Puts a threat on the backlog, or completes what is known of it there; True where it is new."""
    if threat_id in state.collected:
        return False
    known = state.backlog.get(threat_id)
    if known is None:
        state.backlog[threat_id] = seen
        return True
    known.priority = min(known.priority, seen.priority)
    known.campaign = known.campaign or seen.campaign
    return False


def settle(state: State, threat_id: str, now: datetime) -> None:
    """The threat is delivered, or there is nothing to deliver: off the backlog, remembered."""
    state.backlog.pop(threat_id, None)
    state.collected[threat_id] = int(now.timestamp())


def add_gap(state: State, window: Window, now: datetime) -> None:
    """Records an interval to be read later; what touches it already is joined with it.

    What lies within a gap is recorded already: joined, it would pass its attempts on to its neighbours.
    """
    for around_it in state.gaps:
        if around_it.start <= window.start and window.end <= around_it.end:
            around_it.since = min(around_it.since, now)
            return
    gap = Gap(window.start, window.end, now)
    apart = []
    for other in state.gaps:
        if other.end < gap.start or gap.end < other.start:
            apart.append(other)
        else:
            gap = Gap(
                min(gap.start, other.start),
                max(gap.end, other.end),
                min(gap.since, other.since),
                max(gap.attempts, other.attempts),
                max(filter(None, [gap.tried, other.tried]), default=None),
            )
    state.gaps = sorted([*apart, gap], key=lambda g: g.start)


def ask_again(state: State, window: Window, now: datetime) -> None:
    """Records an interval that somebody wants to be read now, whatever was tried before."""
    close_gap(state, window)
    state.gaps = sorted([*state.gaps, Gap(window.start, window.end, now)], key=lambda g: g.start)


def count_attempt(state: State, window: Window, now: datetime) -> None:
    """Counts for what was asked for, and for no more: of a long gap one hour may fail and the rest not."""
    counted = []
    for gap in state.gaps:
        counted += [Gap(p.start, p.end, gap.since, gap.attempts, gap.tried) for p in _beside(gap, window)]
        start, end = max(gap.start, window.start), min(gap.end, window.end)
        if start < end:
            counted.append(Gap(start, end, gap.since, gap.attempts + 1, now))
    state.gaps = sorted(counted, key=lambda g: g.start)


def close_gap(state: State, window: Window) -> None:
    """Takes an interval that was read (or is lost) out of the gaps; what lies beside it stays."""
    left = []
    for gap in state.gaps:
        left += [Gap(p.start, p.end, gap.since, gap.attempts, gap.tried) for p in _beside(gap, window)]
    state.gaps = left


def _beside(gap: Gap, window: Window) -> list[Window]:
    return around(gap.window(), [window])


def add_lost(state: State, window: Window, why: str) -> None:
    state.lost = [*state.lost, Lost(window.start, window.end, why)][-_LOST_KEPT:]
