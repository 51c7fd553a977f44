"""Open windows and threats of a state: planned, answered, failed, expired. Pure: no I/O, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from tap_forensics.storage.state import Gap, Lease, Lost, State, Threat
from tap_forensics.tap.windows import RETENTION, ReadRange, Window, oldest_start, pad, plan_windows, subtract

# A state of so many threats is about 20 MB, which a small function can still hold twice.
MOST_THREATS = 100_000
_LOST_KEPT = 50
_MOST_CAMPAIGNS = 10_000


@dataclass
class Expired:
    """What left the state without an answer; `covered` are threats whose campaign's report was delivered."""

    windows: list[Window] = field(default_factory=list)
    threats: dict[str, Threat] = field(default_factory=dict)
    covered: dict[str, Threat] = field(default_factory=dict)


def plan(state: State, span: ReadRange, now: datetime) -> None:
    """Opens what of a span is not open yet, and moves the cursor to the span's end."""
    end = span.window.end
    # What a run planned whose clock was ahead has not happened yet. The cursor goes back with it.
    for gap in [gap for gap in state.gaps if gap.end > end]:
        close(state, Window(max(gap.start, end), gap.end))
    if span.expired and state.last_event_time:
        lose(state, span.expired)
    if span.window.is_long_enough():
        pieces = subtract(span.window, [gap.window() for gap in state.gaps])
        state.gaps = _joined([*state.gaps, *(Gap(piece.start, piece.end, now) for piece in pieces)])
        state.last_event_time = end
    elif state.last_event_time:
        state.last_event_time = min(state.last_event_time, end)


def reopen(state: State, window: Window, now: datetime) -> None:
    """Opens a window that somebody wants to be read now, whatever was tried before."""
    close(state, window)
    state.gaps = sorted([*state.gaps, Gap(window.start, window.end, now)], key=lambda gap: gap.start)


def due_windows(state: State, now: datetime) -> list[tuple[Window, Gap]]:
    """The windows to ask for, each with the gap it is in: suspects, then untried ones, then failed ones."""
    gaps = sorted((gap for gap in state.gaps if gap.due(now)), key=Gap.sort_key)
    return [(w, gap) for gap in gaps for w in plan_windows(gap.window()) or [pad(gap.window())]]


def read_until(state: State) -> datetime | None:
    """The cursor, less the open windows that reach up to it: where the events that were read end."""
    until = state.last_event_time
    for gap in sorted(state.gaps, key=lambda gap: gap.end, reverse=True):
        if until and gap.end >= until:
            until = min(until, gap.start)
    return until


def all_read_until(state: State) -> datetime | None:
    """The start of the oldest open window, or the cursor."""
    return min([gap.start for gap in state.gaps], default=state.last_event_time)


def close(state: State, window: Window) -> None:
    """Takes a window that was answered (or expired) out of the gaps; what is beside it stays."""
    state.gaps = [
        msgspec.structs.replace(gap, start=piece.start, end=piece.end)
        for gap in state.gaps
        for piece in subtract(gap.window(), [window])
    ]


def unplan(state: State, window: Window) -> None:
    """TAP says that the end of the plan is not over yet: it is closed, and planned anew by the next run."""
    if window.end == state.last_event_time:
        close(state, window)
        state.last_event_time = window.start


def fail(state: State, window: Window, now: datetime) -> None:
    """Counts a failed attempt for what was asked, and for no more: of a long gap one hour may fail."""
    for gap in _cut_out(state, window):
        gap.failed(now)


def _cut_out(state: State, window: Window) -> list[Gap]:
    """The parts of gaps that a window covers, as gaps of their own from now on."""
    shared = [(gap, max(gap.start, window.start), min(gap.end, window.end)) for gap in state.gaps]
    inside = [msgspec.structs.replace(gap, start=a, end=b) for gap, a, b in shared if a < b]
    close(state, window)
    state.gaps = sorted([*state.gaps, *inside], key=lambda gap: gap.start)
    return inside


def lose(state: State, window: Window, why: str = "TAP keeps 7 days only") -> None:
    """Records a window that can never be read any more."""
    close(state, window)
    state.lost = [*state.lost, Lost(window.start, window.end, why)][-_LOST_KEPT:]


def expire(state: State, now: datetime) -> Expired:
    """Takes out what TAP no longer keeps: windows by their start, threats by when they were seen last."""
    expired = Expired()
    oldest = oldest_start(now)
    for gap in [gap for gap in state.gaps if gap.start < oldest]:
        expired.windows.append(Window(gap.start, min(gap.end, oldest)))
        lose(state, expired.windows[-1])
    for threat_id, threat in list(state.backlog.items()):
        if now - (threat.last_seen or threat.first_seen) > RETENTION:
            del state.backlog[threat_id]
            (expired.covered if threat.campaign in state.campaigns else expired.threats)[threat_id] = threat
    return expired


def drop_surplus(state: State, most: int = MOST_THREATS) -> dict[str, Threat]:
    """Takes the lowest priorities out of a backlog that has more than `most`, those seen first before."""
    if len(state.backlog) <= most:
        return {}
    by_worth = sorted(
        state.backlog.items(),
        key=lambda item: (-item[1].priority, item[1].last_seen or item[1].first_seen),
    )
    surplus = dict(by_worth[: len(by_worth) - most])
    state.backlog = {name: threat for name, threat in state.backlog.items() if name not in surplus}
    return surplus


def count_kills(state: State, dead: Lease, now: datetime) -> list[str]:
    """What a dead run had in flight is suspect now. Returns the names of what is quarantined."""
    asked = [(name, state.backlog[name]) for name in dead.asking if name in state.backlog]
    quarantined = [name for name, threat in asked if threat.killed_a_run(now)]
    for start, end in dead.reading:
        # Counted before the next cut, which makes all gaps anew.
        cut = _cut_out(state, Window(start, end))
        quarantined += [str(gap.window()) for gap in cut if gap.killed_a_run(now)]
    return quarantined


def add_threat(state: State, threat_id: str, seen: Threat) -> bool:
    """Opens a threat, or completes what is known of it. True if it is new."""
    if threat_id in state.collected:
        return False
    known = state.backlog.get(threat_id)
    if known is None:
        state.backlog[threat_id] = seen
        return True
    known.priority = min(known.priority, seen.priority)
    known.campaign = known.campaign or seen.campaign
    known.last_seen = max(filter(None, [known.last_seen, seen.last_seen]), default=None)
    return False


def mark_collected(state: State, threat_id: str, now: datetime) -> None:
    """The threat is delivered, or TAP has nothing to deliver: it is closed, and remembered."""
    state.backlog.pop(threat_id, None)
    state.collected[threat_id] = int(now.timestamp())


def mark_campaigns(
    state: State, campaigns: Iterable[str], now: datetime, most: int = _MOST_CAMPAIGNS
) -> None:
    """Remembers campaigns whose reports were delivered, the newest ones if there are very many."""
    for campaign in campaigns:
        state.campaigns.pop(campaign, None)
        state.campaigns[campaign] = int(now.timestamp())
    surplus = len(state.campaigns) - most
    for campaign in list(itertools.islice(state.campaigns, max(0, surplus))):
        del state.campaigns[campaign]


def prune(state: State, now: datetime, dedup_hours: int) -> None:
    """Drops what was collected longer ago than `dedup_hours`, but never what this run collected."""
    started = state.lease.started if state.lease else now
    oldest = min(now - timedelta(hours=dedup_hours), started).timestamp()
    state.collected = {threat: at for threat, at in state.collected.items() if at >= oldest}
    known = (now - RETENTION).timestamp()
    state.campaigns = {campaign: at for campaign, at in state.campaigns.items() if at >= known}


def _joined(gaps: list[Gap]) -> list[Gap]:
    """In order of time; untried neighbours become one, so that they cost fewer calls."""
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.start):
        if joined and joined[-1].end == gap.start and joined[-1].untried() and gap.untried():
            joined[-1].end = gap.end
        else:
            joined.append(gap)
    return joined
