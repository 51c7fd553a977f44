"""A month of hourly runs against the stand-in for TAP: ours, or the published loop's. The clock is moved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import urllib3

from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World, campaign_sizes
from tests.support.clocks import MovableClock
from tests.support.lab import FORENSICS, SIEM, Lab
from tests.support.lab_bucket import LabBucket
from tests.support.settings import environment

from .plain_loop import threat_ids_in

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
# Tiny: what is measured are calls, not bytes.
_REPORT_BYTES = 200
_MOST_THREATS = 500


@dataclass(frozen=True)
class Month:
    """What happens in it. `by_threat`, `by_campaign`: calls that TAP allows in 24 hours; None: no limit.

    A day brings `members` new threats in new campaigns and `alone` without one. `configured`: whether our
    settings contain the limits.
    """

    by_threat: int | None
    by_campaign: int | None
    members: int = 280
    alone: int = 120
    configured: bool = True

    def world(self, days: int) -> World:
        end = START + days * DAY
        world = World(1, start=START, end=end, messages_per_hour=0, clicks_per_hour=0, campaigns=0)
        world.clicked_every = 10
        world.reports.report_bytes = world.reports.campaign_report_bytes = _REPORT_BYTES
        for number in range(days):
            day, sizes = START + number * DAY, campaign_sizes(self.members, 5, 60, seed=number)
            world.add_threats(self.members + self.alone, day, day + DAY, campaign_sizes=sizes)
        return world

    def tap(self, world: World, clock: MovableClock) -> TapServer:
        return TapServer(
            world,
            clock=clock.now,
            forensics_limit=self.by_threat,
            campaign_forensics_limit=self.by_campaign,
            shared_threat_pool=True,
        )

    def settings(self) -> dict[str, str]:
        limits = {
            "TAP_FORENSICS_DAILY_LIMIT": self.by_threat,
            "TAP_CAMPAIGN_FORENSICS_DAILY_LIMIT": self.by_campaign,
        }
        return {name: str(limit) for name, limit in limits.items() if limit and self.configured}


@dataclass
class Delivered:
    """When the first report of each threat and of each campaign was delivered: the start of that run."""

    threats: dict[str, datetime] = field(default_factory=dict)
    campaigns: dict[str, datetime] = field(default_factory=dict)

    def add(self, report: dict[str, Any], run: datetime) -> None:
        kind = self.campaigns if report["scope"] == "CAMPAIGN" else self.threats
        kind[report["id"]] = min(run, kind.get(report["id"], run))


@dataclass(frozen=True)
class Seen:
    """A threat's first event."""

    created: datetime
    campaign: str | None


@dataclass(frozen=True)
class Outcome:
    """`calls` counts by pool, status and day."""

    seen: dict[str, Seen]
    delivered: Delivered
    calls: Counter[tuple[str, int | None, int]]


def simulate(month: Month, days: int, *, published: bool) -> Outcome:
    """Raises RuntimeError if a call got another answer than a report or a 429."""
    # While a run of the loop works, the clock stands still: else it would depend on milliseconds whether TAP
    # still counts the calls that were made 24 hours before.
    world, clock = month.world(days), MovableClock(START, running=not published)
    seen = {
        name: Seen(event.created, world.threats[name].campaign)
        for event in reversed(world.events)
        for name in event.threat_ids
    }
    with month.tap(world, clock) as tap:
        hours = _hours(clock, days)
        delivered = _published_loop(tap, hours) if published else _ours(month, tap, clock, hours)
        calls = Counter(
            (call.pool, call.status, (call.time - START - HOUR) // DAY) for call in tap.calls if call.pool
        )
    if odd := {status for _, status, _ in calls} - {200, 429}:
        raise RuntimeError(f"calls were answered with {odd}")
    return Outcome(seen, delivered, calls)


def _hours(clock: MovableClock, days: int) -> Iterator[datetime]:
    """The start of each run. Ours also takes real time, so the clock is set to the hour."""
    for number in range(1, days * 24 + 1):
        hour = START + number * HOUR
        clock.step(seconds=(hour - clock.now()).total_seconds())
        yield hour


def _ours(month: Month, tap: TapServer, clock: MovableClock, hours: Iterator[datetime]) -> Delivered:
    with LabBucket(clock.bucket_now) as bucket:
        lab = Lab(tap.world, tap, bucket, clock, environment(tap, bucket, **month.settings()))
        for _ in hours:
            if error := lab.run().error:
                raise error
        return _delivered(lab.evidence())


def _delivered(evidence: dict[str, bytes]) -> Delivered:
    """The name of an object has the start of its run."""
    delivered = Delivered()
    for name, data in evidence.items():
        stamp = name.partition("tap_forensics_")[2][:15]
        run = datetime.strptime(stamp, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
        for line in data.splitlines():
            delivered.add(json.loads(line), run)
    return delivered


def _published_loop(tap: TapServer, hours: Iterator[datetime]) -> Delivered:
    """In the manner of the published function: the threats of the last hour, one call each. A threat whose
    call is answered by 429 is skipped for good.
    """
    delivered, pool = Delivered(), urllib3.PoolManager()
    headers = urllib3.make_headers(basic_auth=f"{tap.principal}:{tap.secret}")

    def get(path: str, query: dict[str, str]) -> Any:
        answer = pool.request("GET", f"{tap.url}{path}?{urlencode(query)}", headers=headers)
        return answer.json() if answer.status == 200 else {}

    for hour in hours:
        window = f"{hour - HOUR:%Y-%m-%dT%H:%M:%SZ}/{hour:%Y-%m-%dT%H:%M:%SZ}"
        found = set(threat_ids_in(get(SIEM, {"format": "json", "interval": window})))
        for threat_id in sorted(found)[:_MOST_THREATS]:
            answer = get(FORENSICS, {"threatId": threat_id, "includeCampaignForensics": "true"})
            for report in answer.get("reports", ()):
                delivered.add(report, hour)
    return delivered
