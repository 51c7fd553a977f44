"""`python -m tests.bench.month`: which threats a month of hourly runs covers under TAP's limits.

A threat is covered if its own report or its campaign's was delivered. Runs start on the hour, so covered
within an hour means: by the next run.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from .month_runs import DAY, HOUR, START, WEEK, Month, Outcome, simulate
from .report import Limit

_NO_LIMIT = Month(None, None)
_PUBLISHED_GUESS = Month(50, 1800)
_LEARNED = Month(50, 1800, configured=False)
_FEW_ALONE = Month(50, 1800, alone=40)
_MOST_ALONE = Month(50, 1800, alone=50)
_COLUMNS = (
    "limits: `threatId` / `campaignId`",
    "threats a day: members + others",
    "",
    "members covered within 1 h · 1 day · 7 days",
    "others covered",
    "all covered",
    "own reports",
    "calls answered: `threatId` with campaign · `threatId` · `campaignId`",
    "429s: first day · a later day",
)
_POOLS = ("forensics", "threat_forensics", "campaign_forensics")


@dataclass(frozen=True)
class Simulation:
    """`published`: the published loop instead of ours."""

    month: Month
    published: bool = False

    def title(self) -> str:
        month = self.month
        limits = " / ".join(str(limit or "none") for limit in (month.by_threat, month.by_campaign))
        who = "published loop" if self.published else "ours" if month.configured else "ours, not configured"
        return f"{limits} | {month.members} + {month.alone} | {who}"


# The longest first: two run at a time. The loop makes no calls by campaignId, so their limit changes nothing.
SIMULATIONS = (
    Simulation(_PUBLISHED_GUESS),
    Simulation(_LEARNED),
    Simulation(Month(50, 50)),
    Simulation(_FEW_ALONE),
    Simulation(_MOST_ALONE),
    Simulation(Month(1800, 1800)),
    Simulation(_NO_LIMIT),
    Simulation(_PUBLISHED_GUESS, published=True),
    Simulation(_NO_LIMIT, published=True),
)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m tests.bench.month", description=__doc__)
    options.add_argument("--days", type=int, default=30, help="at least 8")
    options.add_argument("--processes", type=int, default=2)
    return options


def main() -> None:
    options = parser().parse_args()
    days = max(8, options.days)
    with ProcessPoolExecutor(options.processes) as processes:
        running = {
            simulation: processes.submit(simulate, simulation.month, days, published=simulation.published)
            for simulation in SIMULATIONS
        }
        figures = {simulation: Figures(task.result(), days) for simulation, task in running.items()}
    print(f"# {days} days of hourly runs: Python {platform.python_version()}\n")
    print(table(figures), end="\n\n")
    print(required(figures))


class Figures:
    """What came of one simulation."""

    def __init__(self, outcome: Outcome, days: int) -> None:
        self._outcome, self._days = outcome, days
        self.threats = len(outcome.seen)
        self.own = len(outcome.delivered.threats)

    def covered(self, within: timedelta, *, members: bool, alone: bool) -> float:
        """The share of campaign members, of threats without a campaign, or of both. Threats that are younger
        than `within` at the end do not count.
        """
        latest = START + self._days * DAY - within
        measured = [
            self._covered_within(name, within)
            for name, seen in self._outcome.seen.items()
            if seen.created <= latest and (members if seen.campaign else alone)
        ]
        return sum(measured) / len(measured)

    def _covered_within(self, name: str, within: timedelta) -> bool:
        seen, delivered = self._outcome.seen[name], self._outcome.delivered
        reports = (delivered.threats.get(name), delivered.campaigns.get(seen.campaign or ""))
        return any(at and at - seen.created <= within for at in reports)

    def calls(self, pools: Iterable[str] = _POOLS, *, status: int = 200, since_day: int = 0) -> int:
        return sum(
            count
            for (pool, answer, day), count in self._outcome.calls.items()
            if pool in pools and answer == status and day >= since_day
        )

    def refused_first_day(self) -> int:
        return self.calls(status=429) - self.calls(status=429, since_day=1)

    def refused_a_later_day(self) -> float:
        return self.calls(status=429, since_day=1) / (self._days - 1)


def table(figures: dict[Simulation, Figures]) -> str:
    lines = [" | ".join(_COLUMNS), " | ".join("---" for _ in _COLUMNS)]
    rows = [_row(simulation, figures[simulation]) for simulation in sorted(figures, key=_order)]
    return "\n".join(f"| {line} |" for line in [*lines, *rows])


def _order(simulation: Simulation) -> tuple[bool, float, float, bool, bool]:
    """The standard month from the strictest limits on, ours below the loop; then the other months."""
    month = simulation.month
    limits = (month.by_threat or math.inf, month.by_campaign or math.inf)
    return (month.alone != _NO_LIMIT.alone, *limits, not simulation.published, not month.configured)


def _row(simulation: Simulation, figures: Figures) -> str:
    def shares(*, members: bool, alone: bool) -> str:
        each = (figures.covered(within, members=members, alone=alone) for within in (HOUR, DAY, WEEK))
        return " · ".join(map(_percent, each))

    cells = [
        simulation.title(),
        shares(members=True, alone=False),
        shares(members=False, alone=True),
        shares(members=True, alone=True),
        f"{figures.own:,} of {figures.threats:,}",
        " · ".join(f"{figures.calls([pool]):,}" for pool in _POOLS),
        f"{figures.refused_first_day()} · {figures.refused_a_later_day():.1f}",
    ]
    return " | ".join(cells)


def _percent(share: float) -> str:
    """Rounded down: 100 % means all."""
    return f"{int(share * 1000) / 10:g} %"


def required(figures: dict[Simulation, Figures]) -> str:
    guess, few, most, unlimited = (
        figures[Simulation(month)] for month in (_PUBLISHED_GUESS, _FEW_ALONE, _MOST_ALONE, _NO_LIMIT)
    )
    configured = [figures[s] for s in figures if s.month.configured and not s.published]
    checks = [
        (
            "50 / 1800: share of campaign members covered by the next run",
            guess.covered(HOUR, members=True, alone=False),
            Limit(at_least=1),
        ),
        (
            "50 / 1800, 40 others a day: share of these covered in a day",
            few.covered(DAY, members=False, alone=True),
            Limit(at_least=1),
        ),
        (
            "50 / 1800, 50 others a day: share of these covered in three days",
            most.covered(3 * DAY, members=False, alone=True),
            Limit(at_least=1),
        ),
        ("configured limits: 429s", sum(one.calls(status=429) for one in configured), Limit(at_most=0)),
        ("no limits: forensics calls a threat", unlimited.calls() / unlimited.threats, Limit(1, 1)),
    ]
    rows = [
        f"| {what} | {value:.4g} | {limit} | {'met' if limit.met_by(value) else '**missed**'} |"
        for what, value, limit in checks
    ]
    return "\n".join(["| required | measured | target | |", "|---|---:|---:|---|", *rows])


if __name__ == "__main__":
    main()
