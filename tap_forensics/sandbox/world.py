"""A tenant's history, generated from a seed: the events, when the API shows them, the expected result."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, TypedDict, Unpack

from tap_forensics.sandbox import messages
from tap_forensics.sandbox.messages import WorldThreat
from tap_forensics.sandbox.reports import ReportBook, dumped
from tap_forensics.sandbox.summaries import campaign_details, threat_summary

EVENT_LISTS = ("messagesDelivered", "messagesBlocked", "clicksPermitted", "clicksBlocked")
# Proofpoint's TAP SIEM API documentation: the statuses shown if the request has no `threatStatus`.
SHOWN_STATUSES = ("active", "cleared")
HOUR = timedelta(hours=1)
_CREATED = attrgetter("created")


@dataclass(frozen=True)
class Verdict:
    """A change to an event's threats from `at` on. None keeps the status or the campaign unchanged."""

    at: datetime
    status: str | None = None
    campaign: str | None = None


@dataclass(frozen=True)
class WorldEvent:
    """One SIEM event.

    Windows select events by `created`, which is not in `body`. The API shows the event from `indexed` on and
    stops at `until`. `linked` is when the campaign became known: before it, the response contains null
    instead. `verdicts` are later changes, in order.
    """

    kind: str
    created: datetime
    indexed: datetime
    linked: datetime
    threat_ids: tuple[str, ...]
    body: dict[str, Any]
    verdicts: tuple[Verdict, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True)
class Rates:
    """How often a world contains unusual data. All are fractions of 1, except `late_minutes`.

    `unknown` threats return 404, `empty` ones return no reports, and `false_positive` ones are shown only on
    request. `oddity`: mails with an extra stub, and maps with a malformed entry. `late_minutes` is the
    maximum delay until an event is shown; integrators saw up to about 30.
    """

    unknown: float = 0.03
    empty: float = 0.03
    false_positive: float = 0.02
    oddity: float = 0.08
    late_minutes: float = 30


class WorldSize(TypedDict, total=False):
    """The size of a seeded world. Defaults: 20, 6, 4 and 12."""

    messages_per_hour: int
    clicks_per_hour: int
    campaigns: int
    evidences: int


class ThreatsSize(TypedDict, total=False):
    """The size for `World.from_threats`. Defaults: 0, 12, 40 KB, 400 KB and none.

    `campaign_sizes` is one number of members per campaign, instead of the first two.
    """

    campaigns: int
    threats_per_campaign: int
    report_bytes: int
    campaign_report_bytes: int
    campaign_sizes: Sequence[int]


class World:
    """Events and threats of one tenant from `start` to `end` (timezone-aware, half-open).

    The same seed creates the same world. `messages_per_hour` counts mails; each has one event per recipient.
    Tests add their own data with `add_threat`, `add_campaign` and `add_event`. They can set the exact bytes
    of a response: of a threat's or a campaign's forensics in `overrides`, of a threat's summary in
    `summary_overrides`. `members` has the threats of each campaign. Of the threats that are added together,
    every `clicked_every`th is clicked.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        start: datetime,
        end: datetime,
        odds: Rates = Rates(),
        **size: Unpack[WorldSize],
    ) -> None:
        self.seed, self.start, self.end = seed, start, end
        self.odds = odds
        self.clicked_every = 5
        self.events: list[WorldEvent] = []
        self.threats: dict[str, WorldThreat] = {}
        self.overrides: dict[str, bytes] = {}
        self.summary_overrides: dict[str, bytes] = {}
        self.campaigns: list[str] = []
        self.members: dict[str, list[WorldThreat]] = {}
        self._first_seen: dict[str, datetime] = {}
        self._statuses: dict[str, list[tuple[datetime, str]]] = {}
        self._verdicts: dict[str, list[tuple[datetime, str]]] = {}
        for _ in range(size.get("campaigns", 4)):
            self.add_campaign()
        self.reports = ReportBook(seed, end, size.get("evidences", 12))
        self._rng = random.Random(seed)
        for moment in self._moments(size.get("messages_per_hour", 20)):
            self._mail(moment)
        for moment in self._moments(size.get("clicks_per_hour", 6)):
            self._click(moment)

    @classmethod
    def from_threats(
        cls,
        count: int,
        *,
        now: datetime,
        seed: int = 1,
        **size: Unpack[ThreatsSize],
    ) -> World:
        """A world with exactly `count` threats, all in events of the last hour before `now`.

        The first `campaigns * threats_per_campaign` threats are assigned to the campaigns in rotation. Every
        fifth threat has a click event too. Events are 55 to 5 minutes old, so a lag at the end misses none.
        """
        sizes = size.get("campaign_sizes")
        campaigns = 0 if sizes is not None else size.get("campaigns", 0)
        world = cls(
            seed,
            start=now - HOUR,
            end=now,
            messages_per_hour=0,
            clicks_per_hour=0,
            campaigns=campaigns,
        )
        world.reports.report_bytes = size.get("report_bytes", 40_000)
        world.reports.campaign_report_bytes = size.get("campaign_report_bytes", 400_000)
        start, end = now - timedelta(minutes=55), now - timedelta(minutes=5)
        if sizes is not None:
            world.add_threats(count, start, end, campaign_sizes=sizes)
            return world
        in_campaigns = campaigns * size.get("threats_per_campaign", 12)
        world._spread(
            [world.campaigns[n % campaigns] if n < in_campaigns else None for n in range(count)], start, end
        )
        return world

    def add_campaign(self, members: int = 0, **fields: Any) -> str:
        """Adds a campaign with so many new threats; `fields` as in `WorldThreat`. Returns its id."""
        digest = self._digest(f"campaign {len(self.campaigns)}")
        campaign = str(uuid.UUID(digest[:32], version=4))
        self.campaigns.append(campaign)
        self.members[campaign] = []
        for _ in range(members):
            self.add_threat(campaign=campaign, **fields)
        return campaign

    def add_threats(
        self, count: int, start: datetime, end: datetime, *, campaign_sizes: Iterable[int] = ()
    ) -> list[WorldThreat]:
        """Adds so many threats, with events spread over [start, end) and some clicked (`clicked_every`).

        There is one new campaign per number in `campaign_sizes`, with so many members. The members are mixed
        with the other threats. `campaign_sizes` (the function) makes up sizes.
        """
        homes: list[str | None] = [
            campaign for size in campaign_sizes for campaign in [self.add_campaign()] * size
        ]
        if len(homes) > count:
            raise ValueError(f"{len(homes)} members of campaigns do not fit in {count} threats")
        homes += [None] * (count - len(homes))
        self._rng.shuffle(homes)
        return self._spread(homes, start, end)

    def _spread(self, homes: Sequence[str | None], start: datetime, end: datetime) -> list[WorldThreat]:
        """One threat and its events for each campaign (or None) in `homes`."""
        threats = []
        for number, campaign in enumerate(homes):
            threat = self.add_threat(campaign=campaign)
            created = start + number * (end - start) / len(homes)
            self.add_event("messagesDelivered", [threat.id], created=created)
            if number % self.clicked_every == 0:
                self.add_event("clicksPermitted", [threat.id], created=created)
            threats.append(threat)
        return threats

    def add_threat(self, threat_id: str | None = None, **fields: Any) -> WorldThreat:
        """Adds one threat; `fields` as in `WorldThreat`. The default id is the next one of the seed."""
        number = len(self.threats)
        threat = WorldThreat(threat_id or self._digest(f"threat {number}"), number, **fields)
        self.threats[threat.id] = threat
        if threat.campaign:
            self.members.setdefault(threat.campaign, []).append(threat)
        return threat

    def add_event(
        self,
        kind: str,
        threat_ids: Sequence[str] = (),
        *,
        created: datetime,
        indexed: datetime | None = None,
        body: dict[str, Any] | None = None,
    ) -> WorldEvent:
        """Adds one event, shown from `indexed` (default `created`). Unknown ids become threats with a report.

        If `body` is given, it is the event's body, and `threat_ids` only lists what a reader must find in it.
        """
        known = [self.threats.get(name) or self.add_threat(name) for name in threat_ids]
        threats = [replace(threat, status=self.status_at(threat.id, created)) for threat in known]
        made = body if body is not None else self._body(kind, threats, created)
        event = WorldEvent(kind, created, indexed or created, created, tuple(threat_ids), made)
        self._keep(event)
        return event

    def change_status(self, threat_id: str, status: str, *, at: datetime) -> None:
        """From `at` on, the threat has another status: in its summary, and in events created from then on.

        Call it before those events are added. Events that exist keep their status; `rejudge` changes one.
        """
        insort(self._statuses.setdefault(self.threats[threat_id].id, []), (at, status))

    def status_at(self, threat_id: str, moment: datetime) -> str:
        """The status that a new event of the threat shows, and by which requests select it."""
        changes = [status for at, status in self._statuses.get(threat_id, []) if at <= moment]
        return changes[-1] if changes else self.threats[threat_id].status

    def rejudge(self, event: WorldEvent, verdict: Verdict, *, recreated: bool) -> WorldEvent:
        """TAP changes its verdict on an event at `verdict.at`. Returns the event with the new verdict.

        It is unknown which of two ways a live tenant uses. Without `recreated`, the event keeps its creation
        time; a reader sees the change if it reads that window again. With `recreated`, the event disappears
        from its old time and gets a new creation time.
        """
        for name in event.threat_ids if verdict.status else ():
            insort(self._verdicts.setdefault(name, []), (verdict.at, str(verdict.status)))
        self.events.remove(event)
        judged = replace(event, verdicts=(*event.verdicts, verdict))
        if recreated:
            self._keep(replace(event, until=verdict.at))
            judged = replace(judged, created=verdict.at, indexed=verdict.at)
        self._keep(judged)
        return judged

    def events_between(self, start: datetime, end: datetime, now: datetime | None = None) -> list[WorldEvent]:
        """Events created in [start, end), in order. With `now`, only those that the API shows then."""
        first = bisect_left(self.events, start, key=_CREATED)
        last = bisect_left(self.events, end, key=_CREATED)
        return [event for event in self.events[first:last] if now is None or _is_shown(event, now)]

    def threat_ids_between(self, start: datetime, end: datetime, now: datetime | None = None) -> set[str]:
        """The expected result: every threat that the API shows for [start, end) with the default statuses."""
        return {
            name
            for event in self.events_between(start, end, now)
            for name in event.threat_ids
            if self.status_at(name, event.created) in SHOWN_STATUSES
        }

    def forensics(self, threat_id: str, include_campaign: bool = False) -> dict[str, Any] | None:
        """The response for a threat as a dict, or None if the API returns 404."""
        answer = self.forensics_bytes(threat_id, include_campaign)
        return None if answer is None else json.loads(answer)

    def forensics_bytes(self, threat_id: str, include_campaign: bool = False) -> bytes | None:
        """The response as sent: the threat's report, then the campaign's report if requested and present."""
        if threat_id in self.overrides:
            return self.overrides[threat_id]
        threat = self.threats.get(threat_id)
        if threat is None or threat.answer == "unknown":
            return None
        if threat.answer == "empty":
            return self.reports.response([])
        reports = [self.reports.threat_report(threat)]
        if include_campaign and threat.campaign:
            reports.append(self.reports.campaign_report(threat.campaign))
        return self.reports.response(reports)

    def campaign_bytes(self, campaign: str) -> bytes | None:
        """The response for a campaign id, or None if the campaign does not exist."""
        if campaign in self.overrides:
            return self.overrides[campaign]
        known = campaign in self.members
        return self.reports.response([self.reports.campaign_report(campaign)]) if known else None

    def summary(self, threat_id: str, now: datetime) -> dict[str, Any] | None:
        """The summary of a threat as of `now`, or None if the API returns 404.

        The status is the one that the threat was given last, by `change_status` or by a verdict on an event.
        """
        threat = self.threats.get(threat_id)
        if threat is None or not threat.has_summary:
            return None
        given = sorted([*self._statuses.get(threat_id, []), *self._verdicts.get(threat_id, [])])
        statuses = [threat.status, *(status for at, status in given if at <= now)]
        return threat_summary(self.seed, threat, statuses[-1], self._identified(threat))

    def summary_bytes(self, threat_id: str, now: datetime) -> bytes | None:
        """The response as sent."""
        if threat_id in self.summary_overrides:
            return self.summary_overrides[threat_id]
        summary = self.summary(threat_id, now)
        return None if summary is None else dumped(summary)

    def details_bytes(self, campaign: str, now: datetime) -> bytes | None:
        """A campaign's description and its members as of `now`, or None if the campaign does not exist."""
        if campaign not in self.members:
            return None
        seen = [(threat, self._identified(threat)) for threat in self.members[campaign]]
        members = [(threat, identified) for threat, identified in seen if identified <= now]
        return dumped(campaign_details(self.seed, campaign, members, self.start))

    def _identified(self, threat: WorldThreat) -> datetime:
        return self._first_seen.get(threat.id, self.start)

    def _digest(self, name: str) -> str:
        return hashlib.sha256(f"{self.seed}:{name}".encode()).hexdigest()

    def _moments(self, per_hour: int) -> list[datetime]:
        span = (self.end - self.start).total_seconds()
        seconds = sorted(self._rng.random() * span for _ in range(round(per_hour * span / 3600)))
        return [self.start + timedelta(milliseconds=int(1000 * second)) for second in seconds]

    def _indexed(self, created: datetime) -> datetime:
        late = self._rng.random() * self.odds.late_minutes if self._rng.random() < 0.4 else 0
        return created + timedelta(minutes=late)

    def _new_threat(self) -> WorldThreat:
        rng = self._rng
        roll = rng.random()
        answer = "report"
        if roll < self.odds.unknown + self.odds.empty:
            answer = "unknown" if roll < self.odds.unknown else "empty"
        kind = rng.choice(["url", "url", "attachment", "messageText"])
        artifact = {
            "url": f"host-{rng.randrange(5000)}.example.com/{messages.hex_digits(rng, 8)}",
            "attachment": messages.hex_digits(rng, 64),
            "messageText": f"fraud{rng.randrange(99)}@example.com",
        }[kind]
        return self.add_threat(
            campaign=rng.choice(self.campaigns) if self.campaigns and rng.random() < 0.5 else None,
            kind=kind,
            artifact=artifact,
            answer=answer,
            classification={"attachment": "malware", "messageText": "impostor"}.get(kind, "phish"),
            status=rng.choice(["active", "active", "active", "cleared"]),
        )

    def _mail_threats(self) -> list[WorldThreat]:
        """One or two threats, new or already used. A false positive is always the only one."""
        if self._rng.random() < self.odds.false_positive:
            return [self.add_threat(status="falsePositive")]
        known = [t for t in list(self.threats.values())[-20:] if t.status != "falsePositive"]
        chosen: dict[str, WorldThreat] = {}
        for _ in range(self._rng.choice([1, 1, 1, 2])):
            old = known and self._rng.random() < 0.4
            threat = self._rng.choice(known) if old else self._new_threat()
            chosen[threat.id] = threat
        return list(chosen.values())

    def _mail(self, created: datetime) -> None:
        rng = self._rng
        threats, shared = self._mail_threats(), messages.mail(rng, created)
        kind = rng.choice(EVENT_LISTS[:2])
        linked = created + timedelta(minutes=rng.choice([0, 0, 0, 90]))
        for _ in range(rng.choice([1, 1, 2, 3])):
            info = messages.threats_info(rng, threats, created, self.odds.oddity)
            body = messages.copy_for(rng, shared, messages.address(rng), info)
            names = tuple(threat.id for threat in threats)
            self._keep(WorldEvent(kind, created, self._indexed(created), linked, names, body))
        if rng.random() < self.odds.oddity:
            self._stub(kind, created, shared, rng.choice([[], threats]))

    def _stub(
        self, kind: str, created: datetime, shared: dict[str, Any], threats: Sequence[WorldThreat]
    ) -> None:
        info = messages.threats_info(self._rng, threats, created, junk=0) or None
        body = messages.stub(messages.copy_for(self._rng, shared, "", info))
        names = tuple(threat.id for threat in threats)
        self._keep(WorldEvent(kind, created, self._indexed(created), created, names, body))

    def _click(self, created: datetime) -> None:
        rng = self._rng
        known = [
            threat for threat in self.threats.values() if threat.kind == "url" and threat.status == "active"
        ]
        threat = rng.choice(known) if known else self._new_threat()
        body = messages.click(rng, threat, created)
        self._keep(
            WorldEvent(
                rng.choice(EVENT_LISTS[2:]), created, self._indexed(created), created, (threat.id,), body
            )
        )

    def _body(self, kind: str, threats: Sequence[WorldThreat], created: datetime) -> dict[str, Any]:
        rng = self._rng
        if kind.startswith("clicks"):
            return messages.click(rng, threats[0], created)
        info = messages.threats_info(rng, threats, created, junk=0)
        return messages.copy_for(rng, messages.mail(rng, created), messages.address(rng), info)

    def _keep(self, event: WorldEvent) -> None:
        for name in event.threat_ids:
            self._first_seen[name] = min(event.created, self._first_seen.get(name, event.created))
        insort(self.events, event, key=_CREATED)


def _is_shown(event: WorldEvent, now: datetime) -> bool:
    return event.indexed <= now and (event.until is None or now < event.until)


def campaign_sizes(members: int, smallest: int, largest: int, seed: int = 1) -> list[int]:
    """Divides `members` into campaigns of `smallest` to `largest` members, at random."""
    if members < smallest or largest < 2 * smallest - 1:
        raise ValueError(f"{members} cannot be divided into parts of {smallest} to {largest}")
    rng, sizes = random.Random(seed), []
    while members:
        size = rng.randint(smallest, min(largest, members))
        if 0 < members - size < smallest:
            # The rest is too small for a campaign: take all, or leave just enough for one.
            size = members if members <= largest else members - smallest
        sizes.append(size)
        members -= size
    return sizes
