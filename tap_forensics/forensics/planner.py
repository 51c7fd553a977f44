"""Which calls a run makes next: each pool's calls are used where they bring most. Pure.

While enough calls by threatId are left, each waiting threat gets one that includes its campaign's reports.
Otherwise campaigns come first: one call by campaignId covers all threats of a campaign. Then the calls by
threatId go to threats without a campaign, to members of campaigns that are not covered, and to the rest. The
rest leaves a sixth of the limit to threats that the next runs find: these are not covered by anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from tap_forensics.storage.open_items import dedup_start
from tap_forensics.storage.state import OpenItem, State, Threat
from tap_forensics.tap.quota import CAMPAIGN_FORENSICS, FORENSICS, THREAT_FORENSICS, before_the_end
from tap_forensics.workers import Request

_EARLIEST = -1


@dataclass(frozen=True)
class Step:
    """Calls of one type, in their order."""

    pool: str
    requests: list[Request]


@dataclass
class Waiting:
    """What a run may still request: threats by ID, and campaigns with a call of their own.

    `uncovered`: campaigns without a delivered report, which may come with a member's call. `left`: calls left
    in each pool; None if no limit is known. `reserved`: of these, calls that covered threats may not use.
    `probe`: the usual calls may be unlimited again, which one of them tells.
    """

    threats: dict[str, Threat]
    campaigns: dict[str, OpenItem] = field(default_factory=dict)
    uncovered: set[str] = field(default_factory=set)
    left: Mapping[str, int | None] = field(default_factory=dict)
    reserved: Mapping[str, int] = field(default_factory=dict)
    probe: bool = False


def due_campaigns(
    state: State, threats: Mapping[str, Threat], now: datetime, dedup_hours: int
) -> dict[str, OpenItem]:
    """The campaigns of these threats whose report was not delivered within `dedup_hours`, unless a failed one
    has to wait. An older report is requested again only for a threat that is new since then.
    """
    oldest = dedup_start(state, now, dedup_hours)
    newest: dict[str, int] = {}
    for threat in threats.values():
        if threat.campaign:
            first_seen = int(threat.first_seen.timestamp())
            newest[threat.campaign] = max(first_seen, newest.get(threat.campaign, first_seen))
    items = {name: state.failed_campaigns.get(name, OpenItem()) for name in newest}
    return {
        name: item
        for name, item in items.items()
        if item.due(now) and state.campaigns.get(name, _EARLIEST) < min(oldest, newest[name])
    }


def next_step(waiting: Waiting, campaign_first: str) -> Step | None:
    """The calls of the next type, as many as are left of it; None if nothing can be requested.

    `campaign_first`: `auto`, `on` or `off`.
    """
    if not waiting.threats:
        return None
    if campaign_first == "off" or not (campaign_first == "on" or _is_short(waiting)):
        return _in_pool(FORENSICS, _requests(sorted(waiting.threats.items(), key=_by_age)), waiting)
    by_campaign = _in_pool(CAMPAIGN_FORENSICS, _campaign_requests(waiting), waiting)
    return by_campaign or _by_threat(waiting)


def _is_short(waiting: Waiting) -> bool:
    left = waiting.left.get(FORENSICS)
    return left is not None and len(waiting.threats) > left and not waiting.probe


def _in_pool(pool: str, requests: list[Request], waiting: Waiting) -> Step | None:
    left = waiting.left.get(pool)
    ordered = before_the_end(
        [request for request in requests if not request.item.attempts],
        [request for request in requests if request.item.attempts],
        left,
    )
    return Step(pool, ordered[:left]) if ordered[:left] else None


def _campaign_requests(waiting: Waiting) -> list[Request]:
    """One for each campaign, with the member that is the most urgent one. A repeated report covers nothing
    new, so it comes after the others.
    """
    members: dict[str, str] = {}
    for threat_id, threat in sorted(waiting.threats.items(), key=_by_priority):
        if threat.campaign in waiting.campaigns:
            members.setdefault(threat.campaign, threat_id)
    requests = [
        Request(threat_id, waiting.campaigns[campaign], campaign, campaign)
        for campaign, threat_id in members.items()
    ]

    def order(request: Request) -> tuple[bool, int, bool]:
        return (request.item.kills == 0, request.item.attempts, request.name not in waiting.uncovered)

    return sorted(requests, key=order)


def _by_threat(waiting: Waiting) -> Step | None:
    """The first of three groups, in the pool that fits it, or in the other one if that has no calls left."""
    alone, uncovered, covered = _groups(waiting)
    for threats, pools, of in (
        (alone, (THREAT_FORENSICS, FORENSICS), waiting),
        # The campaign's report comes with it.
        (uncovered, (FORENSICS, THREAT_FORENSICS), waiting),
        (covered, (THREAT_FORENSICS, FORENSICS), _without_reserve(waiting)),
    ):
        for pool in pools:
            if step := _in_pool(pool, _requests(threats), of):
                return step
    return None


def _without_reserve(waiting: Waiting) -> Waiting:
    left = {
        pool: None if calls is None else max(0, calls - waiting.reserved.get(pool, 0))
        for pool, calls in waiting.left.items()
    }
    return replace(waiting, left=left)


def _groups(waiting: Waiting) -> tuple[list[_Entry], list[_Entry], list[_Entry]]:
    """Threats without a campaign, members of campaigns that are not covered, and the other members."""
    entries = list(waiting.threats.items())
    alone = [entry for entry in entries if not entry[1].campaign]
    members = sorted((entry for entry in entries if entry[1].campaign), key=_by_priority)
    uncovered = [entry for entry in members if entry[1].campaign in waiting.uncovered]
    covered = [entry for entry in members if entry[1].campaign not in waiting.uncovered]
    return sorted(alone, key=_by_age), uncovered, covered


_Entry = tuple[str, Threat]


def _requests(entries: Collection[_Entry]) -> list[Request]:
    return [Request(threat_id, threat, None, threat.campaign) for threat_id, threat in entries]


def _by_age(entry: _Entry) -> tuple[bool, int, int, datetime]:
    return entry[1].sort_key()


def _by_priority(entry: _Entry) -> tuple[bool, int, int, float]:
    """Suspects first, then untried threats by priority, the most recently seen first, then failed ones."""
    threat = entry[1]
    seen = threat.last_seen or threat.first_seen
    return (threat.kills == 0, threat.attempts, threat.priority, -seen.timestamp())
