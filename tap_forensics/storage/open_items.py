"""The open windows, threats and summaries of a state: plan, close, fail, expire. Pure: no I/O, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from tap_forensics.storage.state import (
    Gap,
    Lease,
    LostInterval,
    OpenItem,
    State,
    Summarized,
    Summary,
    Threat,
)
from tap_forensics.tap.windows import RETENTION, ReadRange, Window, oldest_start, pad, plan_windows, subtract

# A state with this many threats is about 20 MB; a small function has memory for two copies.
MOST_THREATS = 100_000
# With a full backlog, so many still fit the memory of a small function.
MOST_SUMMARIES = 50_000
_MAX_LOST = 50
_MAX_CAMPAIGNS = 10_000


@dataclass
class Expired:
    """Items that expired without an answer. `covered`: threats whose campaign's report was delivered.
    `summaries`: IDs of threats.
    """

    windows: list[Window] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    threats: dict[str, Threat] = field(default_factory=dict)
    covered: dict[str, Threat] = field(default_factory=dict)


def plan(state: State, span: ReadRange, now: datetime) -> None:
    """Opens the parts of a span that are not open yet, and moves the cursor to the span's end."""
    end = span.window.end
    # A run whose clock was ahead planned the future. That part is closed, and the cursor moves back.
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
    """Opens a window as untried, also if it was read or failed before."""
    close(state, window)
    state.gaps = sorted([*state.gaps, Gap(window.start, window.end, now)], key=lambda gap: gap.start)


def due_windows(state: State, now: datetime) -> list[tuple[Window, Gap]]:
    """The windows to request, each with its gap: suspects, then untried windows, then failed ones."""
    gaps = sorted((gap for gap in state.gaps if gap.due(now)), key=Gap.sort_key)
    return [(window, gap) for gap in gaps for window in plan_windows(gap.window()) or [pad(gap.window())]]


def read_until(state: State) -> datetime | None:
    """The end of the events that were read: the cursor, less the open windows right before it."""
    until = state.last_event_time
    for gap in sorted(state.gaps, key=lambda gap: gap.end, reverse=True):
        if until and gap.end >= until:
            until = min(until, gap.start)
    return until


def all_read_until(state: State) -> datetime | None:
    """The start of the oldest open window, or the cursor."""
    return min([gap.start for gap in state.gaps], default=state.last_event_time)


def close(state: State, window: Window) -> None:
    """Removes a window that was answered or expired from the gaps; the rest of a gap stays open."""
    state.gaps = [
        msgspec.structs.replace(gap, start=piece.start, end=piece.end)
        for gap in state.gaps
        for piece in subtract(gap.window(), [window])
    ]


def unplan(state: State, window: Window) -> None:
    """Closes the last window, which TAP calls still current; the next run plans it again."""
    if window.end == state.last_event_time:
        close(state, window)
        state.last_event_time = window.start


def fail(state: State, window: Window, now: datetime) -> None:
    """Counts a failed attempt for this window only: one hour of a long gap may fail."""
    for gap in split_off(state, window):
        gap.failed(now)


def split_off(state: State, window: Window) -> list[Gap]:
    """Makes the parts of gaps inside a window separate gaps, and returns them."""
    shared = [(gap, max(gap.start, window.start), min(gap.end, window.end)) for gap in state.gaps]
    inside = [msgspec.structs.replace(gap, start=start, end=end) for gap, start, end in shared if start < end]
    close(state, window)
    state.gaps = sorted([*state.gaps, *inside], key=lambda gap: gap.start)
    return inside


def lose(state: State, window: Window, why: str = "TAP keeps 7 days only") -> None:
    """Records a window that can no longer be read."""
    close(state, window)
    state.lost = [*state.lost, LostInterval(window.start, window.end, why)][-_MAX_LOST:]


def expire(state: State, now: datetime) -> Expired:
    """Removes what TAP no longer keeps: windows by their start, threats by when they were last seen."""
    expired = Expired()
    oldest = oldest_start(now)
    for gap in [gap for gap in state.gaps if gap.start < oldest]:
        expired.windows.append(Window(gap.start, min(gap.end, oldest)))
        lose(state, expired.windows[-1])
    for threat_id, threat in list(state.backlog.items()):
        if now - (threat.last_seen or threat.first_seen) > RETENTION:
            del state.backlog[threat_id]
            (expired.covered if is_covered(state, threat) else expired.threats)[threat_id] = threat
    expired.summaries = [name for name, open_ in state.summaries.items() if now - open_.last_seen > RETENTION]
    for threat_id in expired.summaries:
        del state.summaries[threat_id]
    return expired


def is_covered(state: State, threat: Threat) -> bool:
    """Whether the report of the threat's campaign was delivered in the last 7 days."""
    return threat.campaign in state.campaigns


def drop_surplus(state: State, most: int = MOST_THREATS) -> dict[str, Threat]:
    """Keeps `most` threats of the backlog; returns the rest: the lowest priorities, longest unseen first."""
    if len(state.backlog) <= most:
        return {}
    worst_first = sorted(
        state.backlog.items(),
        key=lambda item: (-item[1].priority, item[1].last_seen or item[1].first_seen),
    )
    surplus = dict(worst_first[: len(worst_first) - most])
    state.backlog = {name: threat for name, threat in state.backlog.items() if name not in surplus}
    return surplus


def drop_surplus_summaries(state: State, most: int = MOST_SUMMARIES) -> list[str]:
    """Keeps the `most` open summaries that were seen last; returns the threats of the rest."""
    surplus = len(state.summaries) - most
    if surplus <= 0:
        return []
    names = sorted(state.summaries, key=lambda name: state.summaries[name].last_seen)[:surplus]
    for threat_id in names:
        del state.summaries[threat_id]
    return names


def count_kills(state: State, dead: Lease, now: datetime) -> list[str]:
    """Marks the items that a dead run had in flight as suspects. Returns the names of quarantined ones."""
    in_flight: list[tuple[str, OpenItem]] = [
        *((name, state.backlog[name]) for name in dead.asking if name in state.backlog),
        *((name, state.summaries[name]) for name in dead.asking_summaries if name in state.summaries),
        *(
            (name, state.failed_campaigns.setdefault(name, OpenItem()))
            for name in dead.asking_campaigns
            if name not in dead.campaigns
        ),
    ]
    quarantined = [name for name, item in in_flight if item.killed_a_run(now)]
    for start, end in dead.reading:
        # Count before the next split, which replaces all gaps.
        gaps = split_off(state, Window(start, end))
        quarantined += [str(gap.window()) for gap in gaps if gap.killed_a_run(now)]
    return quarantined


def add_threat(state: State, threat_id: str, seen: Threat) -> bool:
    """Opens a threat, or updates the open one. Returns whether it is new."""
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


def add_summary(state: State, threat_id: str, seen: Summary) -> None:
    """Opens a threat's summary, or updates the open one. A delivered one is opened again only if a later
    event shows another status.
    """
    known = state.summaries.get(threat_id)
    delivered = state.summarized.get(threat_id)
    if known:
        known.last_seen = max(known.last_seen, seen.last_seen)
        if seen.event_time > known.event_time:
            known.status, known.event_time = seen.status, seen.event_time
    elif not delivered or (seen.event_time > delivered.event_time and seen.status != delivered.status):
        state.summaries[threat_id] = seen


def mark_summarized(state: State, threat_id: str, now: datetime) -> None:
    """Closes a summary that is delivered, or that TAP does not have, and records that."""
    seen = state.summaries.pop(threat_id, None)
    at = int(now.timestamp())
    state.summarized[threat_id] = Summarized(at, seen.status, seen.event_time) if seen else Summarized(at)


def campaign_failed(state: State, campaign: str, now: datetime) -> None:
    """Counts a call by `campaignId` without a report. Its threats stay open."""
    state.failed_campaigns.setdefault(campaign, OpenItem()).failed(now)


def mark_collected(state: State, threat_id: str, now: datetime) -> None:
    """Closes a threat that is delivered, or for which TAP has nothing, and records that."""
    state.backlog.pop(threat_id, None)
    state.collected[threat_id] = int(now.timestamp())


def mark_campaigns(state: State, campaigns: Iterable[str], now: datetime, most: int = _MAX_CAMPAIGNS) -> None:
    """Records campaigns whose reports were delivered; keeps the `most` newest ones."""
    for campaign in campaigns:
        state.campaigns.pop(campaign, None)
        state.failed_campaigns.pop(campaign, None)
        state.campaigns[campaign] = int(now.timestamp())
    surplus = len(state.campaigns) - most
    for campaign in list(itertools.islice(state.campaigns, max(0, surplus))):
        del state.campaigns[campaign]


def prune(state: State, now: datetime, dedup_hours: int) -> None:
    """Removes threats collected over `dedup_hours` ago, but not those of this run; campaigns after 7 days."""
    oldest = dedup_start(state, now, dedup_hours)
    state.collected = {threat: at for threat, at in state.collected.items() if at >= oldest}
    state.summarized = {threat: done for threat, done in state.summarized.items() if done.at >= oldest}
    waiting = {threat.campaign for threat in state.backlog.values()}
    state.failed_campaigns = {name: it for name, it in state.failed_campaigns.items() if name in waiting}
    known = (now - RETENTION).timestamp()
    state.campaigns = {campaign: at for campaign, at in state.campaigns.items() if at >= known}


def dedup_start(state: State, now: datetime, dedup_hours: int) -> float:
    """The epoch seconds from which what was delivered is not delivered again: `dedup_hours` ago, and at the
    latest the start of this run.
    """
    started = state.lease.started if state.lease else now
    return min(now - timedelta(hours=dedup_hours), started).timestamp()


def _joined(gaps: list[Gap]) -> list[Gap]:
    """Sorts gaps by time and joins adjacent untried ones, so that they need fewer calls."""
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.start):
        if joined and joined[-1].end == gap.start and joined[-1].untried() and gap.untried():
            joined[-1].end = gap.end
        else:
            joined.append(gap)
    return joined
