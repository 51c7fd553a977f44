"""The state document: what is planned, what is open, what was collected, and the lease of the current run.

    {"version": 2,
     "last_event_time": "2026-11-21T20:59:00Z",   the cursor: everything before it was planned
     "gaps":      [{"start": …, "end": …, …}],    the open windows: planned, no response yet
     "backlog":   {threatId: {"priority": 1, "first_seen": …, "last_seen": …, "campaign": …, …}},
     "collected": {threatId: epoch seconds},      not fetched again within DEDUP_HOURS
     "campaigns": {campaignId: epoch seconds},    when a campaign's report was last delivered
     "failed_campaigns": {campaignId: {…}},       campaigns of open threats whose own call failed
     "summaries": {threatId: {"status": …, "event_time": …, …}},  the open threat summaries
     "summarized": {threatId: {"at": epoch seconds, "status": …, …}},  delivered summaries
     "calls":     {"siem": {"buckets": {…}}, …},  the call quota: calls of the last 24 hours
     "lost":      [{"start": …, "end": …, "why": …}],  the latest windows that expired unread
     "last_run_id": "20261121_210000", "last_owner": …,  of the last lease that was released
     "lease":     {"run_id": …, "owner": …, "started": …, "seconds": 180, "asking": [threatId, …],
                  "asking_campaigns": […], "asking_summaries": […], "reading": [[start, end], …],
                  "batches": 2, "campaigns": […], "event_batches": 3, "summary_batches": 1}}

A window in "gaps", a threat in "backlog" and a threat in "summaries" are open items. An item stays open until
TAP itself answers it, or until it expires. Every open item, and every failed campaign, also has

    "attempts"  runs in which it failed; from the third on it waits between attempts
    "tried"     when it last failed
    "kills"     runs that died while it was in flight: it is requested alone, from the second on a day later

The lease names in "asking…" and "reading" what the run may have in flight. A run that takes over counts a
kill for each of them that is still open. Documents of version 1 (0.1.0) can be read, too. This module only
defines the values; `open_items.py` changes them, `state_store.py` reads and commits them.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

from tap_forensics.clock import floor_to_second, parse_iso
from tap_forensics.errors import StateUnreadable
from tap_forensics.tap.quota import Pool
from tap_forensics.tap.windows import Window

VERSION = 2
RUN_ID_FORMAT = "%Y%m%d_%H%M%S"
_BACKOFF_FROM_ATTEMPTS = 3
_QUARANTINED_FROM_KILLS = 2
_FIRST_BACKOFF = timedelta(hours=1)
_MAX_BACKOFF = timedelta(days=1)
# The next run of an hourly schedule may start a little early.
_EARLY = timedelta(minutes=5)
_CLOCK_SKEW = timedelta(hours=1)
_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class OpenItem(msgspec.Struct, omit_defaults=True, kw_only=True, rename={"last_attempt_at": "tried"}):
    """The common fields of open windows and threats."""

    attempts: Count = 0
    last_attempt_at: Moment | None = None
    kills: Count = 0

    def due(self, now: datetime) -> bool:
        """Whether this run may request it."""
        last = self.last_attempt_at
        return last is None or last > now or now - last >= self._backoff()

    def untried(self) -> bool:
        return not self.attempts and not self.kills

    def failed(self, now: datetime) -> None:
        """Counts a run without an answer from TAP. The run survived, so the item is no longer a suspect."""
        self.attempts += 1
        self.last_attempt_at = now
        self.kills = 0

    def killed_a_run(self, now: datetime) -> bool:
        """Counts a run that died with it in flight. Returns whether the item is quarantined for a day."""
        self.kills += 1
        self.last_attempt_at = now
        return self.kills >= _QUARANTINED_FROM_KILLS

    def _backoff(self) -> timedelta:
        if self.kills >= _QUARANTINED_FROM_KILLS:
            return _MAX_BACKOFF
        if self.attempts < _BACKOFF_FROM_ATTEMPTS:
            return timedelta()
        hours: int = 2 ** min(self.attempts - _BACKOFF_FROM_ATTEMPTS, 5)
        return min(_FIRST_BACKOFF * hours, _MAX_BACKOFF) - _EARLY


class Threat(OpenItem):
    """A threat whose forensics are not delivered yet. The lowest `priority` is fetched first."""

    priority: int
    first_seen: Moment
    last_seen: Moment | None = None
    campaign: str | None = None

    def sort_key(self) -> tuple[bool, int, int, datetime]:
        """Suspects first, then untried threats, then failed ones."""
        return (self.kills == 0, self.attempts, self.priority, self.first_seen)


class Gap(OpenItem, rename={"planned_at": "since", "last_attempt_at": "tried"}):
    """An open window: planned, without a response yet."""

    start: Moment
    end: Moment
    planned_at: Moment

    def window(self) -> Window:
        return Window(self.start, self.end)

    def sort_key(self) -> tuple[bool, int, datetime]:
        """As `Threat.sort_key`; if equal, the one that expires first."""
        return (self.kills == 0, self.attempts, self.start)


class Summary(OpenItem):
    """A threat whose summary is not delivered yet, with its status in the latest event that showed it.

    `event_time`: the time of that event, or that of the status if it is later, as TAP wrote them.
    """

    last_seen: Moment
    status: str = ""
    event_time: str = ""

    def sort_key(self) -> tuple[bool, int, float]:
        """Suspects first, then untried summaries, the newest first, then failed ones."""
        return (self.kills == 0, self.attempts, -self.last_seen.timestamp())


class Summarized(msgspec.Struct, omit_defaults=True):
    """When a threat's summary was delivered, for which status, and the event that showed it."""

    at: Count
    status: str = ""
    event_time: str = ""


class LostInterval(msgspec.Struct):
    """A window that expired unread, and why it was not read."""

    start: Moment
    end: Moment
    why: str


class Lease(msgspec.Struct, omit_defaults=True):
    """The lease of the current run. It ends `seconds` after the last commit, by the bucket's clock.

    `asking…`, `reading`: what the run may have in flight. `…batches`, `campaigns`: what it has written and
    committed. Version 1 had `until` instead of `seconds`.
    """

    run_id: str
    owner: str
    started: Moment
    seconds: Count = 0
    asking: list[str] = []
    reading: list[tuple[Moment, Moment]] = []
    asking_campaigns: list[str] = []
    asking_summaries: list[str] = []
    batches: Count = 0
    campaigns: list[str] = []
    event_batches: Count = 0
    summary_batches: Count = 0


class State(msgspec.Struct, omit_defaults=True):
    """The whole document; the module's docstring explains it."""

    version: int
    last_event_time: Moment | None = None
    last_run_id: str = ""
    last_owner: str = ""
    lease: Lease | None = None
    gaps: list[Gap] = []
    lost: list[LostInterval] = []
    calls: dict[str, Pool] = {}
    backlog: dict[str, Threat] = {}
    collected: dict[str, Count] = {}
    campaigns: dict[str, Count] = {}
    failed_campaigns: dict[str, OpenItem] = {}
    summaries: dict[str, Summary] = {}
    summarized: dict[str, Summarized] = {}


def encode(state: State) -> bytes:
    return msgspec.json.encode(state)


def decode(data: bytes, where: str, now: datetime) -> State:
    """A state from our document, or from the published function's `{"last_event_time": …}`.

    Raises `StateUnreadable` with `where` and the remedy for any other document, and for times in the future,
    with which nothing would be collected again.
    """
    try:
        state = _parse(data, now)
        _check(state, now)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise StateUnreadable(
            f"the state object {where} cannot be used ({error}); nothing was changed. "
            "`tap-forensics state repair` restores an earlier version of it, or builds one that loses nothing"
        ) from None
    return state


def _parse(data: bytes, now: datetime) -> State:
    document = msgspec.json.decode(data)
    if not isinstance(document, dict):
        raise TypeError("it is not a JSON object")
    return _ours(document, data, now) if "version" in document else _published_state(document)


def _published_state(document: dict[str, Any]) -> State:
    moment = document.get("last_event_time")
    if not isinstance(moment, str):
        raise TypeError("last_event_time is not a string")
    return State(VERSION, last_event_time=parse_iso(moment))


def _ours(document: dict[str, Any], data: bytes, now: datetime) -> State:
    version = document["version"]
    if version not in (1, VERSION) or isinstance(version, bool):
        described = version if isinstance(version, int) else "not a number"
        raise ValueError(
            f"its version is {described}, this program writes {VERSION}: deploy the newer program"
        )
    state = msgspec.json.decode(data, type=State)
    for threat in state.backlog.values():
        # Version 1 did not store when a threat was last seen.
        threat.last_seen = threat.last_seen or now
    return state


def _check(state: State, now: datetime) -> None:
    lease = state.lease
    run_ids = [state.last_run_id] if state.last_run_id else []
    times = {
        "a run id": [run_time(run_id) for run_id in [*run_ids, *([lease.run_id] if lease else [])]],
        "last_event_time": [state.last_event_time] if state.last_event_time else [],
        "the lease": [lease.started] if lease else [],
        "a gap": [moment for gap in state.gaps for moment in (gap.start, gap.end)],
    }
    for what, moments in times.items():
        if any(not _EARLIEST <= moment <= now + _CLOCK_SKEW for moment in moments):
            raise ValueError(f"{what} is in the future, or before the API existed")


def run_time(run_id: str) -> datetime:
    """When a run started, from its ID. Raises ValueError."""
    return datetime.strptime(run_id, RUN_ID_FORMAT).replace(tzinfo=UTC)


def new_lease(state: State, now: datetime, lease_seconds: int) -> Lease:
    """Keeps a dead run's ID, so that its objects are found; a new ID is always later than the last one."""
    owner = secrets.token_hex(8)
    if dead := state.lease:
        return msgspec.structs.replace(dead, owner=owner, seconds=lease_seconds, campaigns=[*dead.campaigns])
    return Lease(_run_id(state.last_run_id, now), owner, floor_to_second(now), lease_seconds)


def _run_id(last: str, now: datetime) -> str:
    this_second = now.strftime(RUN_ID_FORMAT)
    if last < this_second:
        return this_second
    return (run_time(last) + timedelta(seconds=1)).strftime(RUN_ID_FORMAT)
