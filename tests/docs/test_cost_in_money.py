"""deploy/README.md's cost in money is its own prices times its own counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.docs.markers import CHECKOUT

README = (CHECKOUT / "deploy" / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## What it costs\n")[2].partition("\n## ")[0]
DAYS, RUN_SECONDS, GIB_OF_A_RUN, LOG_BYTES = 30, 11, 0.5, 20_000
EVIDENCE_GB = 288 * 90 * 41_000 / 1e9
STATE_GB_OF_A_RUN = 14 * 2 * 39_000 / 1e9


def row(text: str, begin: str) -> list[str]:
    found = re.search(rf"^\| {re.escape(begin)} \|(.+)\|$", text, re.M)
    assert found, begin
    return [cell.strip() for cell in found[1].split("|")]


def number(text: str) -> float:
    return float(re.sub(r"[^0-9.]", "", text))


@dataclass(frozen=True)
class Price:
    """Of one unit, and how many units are free in a month."""

    dollars: float
    free: float

    def of(self, units: float, free: bool) -> float:
        return max(units - (self.free if free else 0), 0) * self.dollars


def price(what: str) -> Price:
    unit, dollars, free = row(SECTION, what)
    each = number(unit) if unit[0].isdigit() else 1
    return Price(number(dollars) / each, number(free))


def per_run(kind: int) -> int:
    """Writes (0) and reads (1) of a run that brings something, as they are counted by a test."""
    return int(row(README, "brings 12 threats and their events")[kind])


def month(tenants: int, runs_a_day: int, *, free: bool = False) -> list[float]:
    """Each column of the table of costs."""
    runs = tenants * runs_a_day * DAYS
    # A single tenant has two secrets, principal and value; a named one has both in one.
    secrets = 2 if tenants == 1 else tenants
    seconds = runs * RUN_SECONDS
    computing = {"CPU, while a run works": seconds, "memory, while a run works": seconds * GIB_OF_A_RUN}
    columns: list[dict[str, float]] = [
        computing | {"requests": runs},
        {"writes (class A)": runs * per_run(0), "reads (class B)": runs * per_run(1)},
        {"storage": tenants * (EVIDENCE_GB + STATE_GB_OF_A_RUN * runs_a_day)},
        {"secret versions": 2 * secrets, "reads of secrets": runs * (2 if tenants == 1 else 1)},
        {"schedules": tenants},
        {"logs": runs * LOG_BYTES / 2**30},
    ]
    return [sum(price(what).of(count, free) for what, count in column.items()) for column in columns]


@pytest.mark.parametrize("tenants", [1, 100])
@pytest.mark.parametrize(("schedule", "runs_a_day"), [("hourly", 24), ("`*/5`", 288)])
def test_each_row_is_its_prices_times_its_counts(tenants: int, schedule: str, runs_a_day: int) -> None:
    runs, *cells = row(SECTION, f"{tenants}, {schedule}")
    costs = month(tenants, runs_a_day)
    expected = [*costs, sum(costs), sum(month(tenants, runs_a_day, free=True))]
    assert number(runs) == tenants * runs_a_day * DAYS
    assert cells == [
        *(f"{cost:,.2f}" for cost in expected[:-2]),
        f"**{expected[-2]:,.2f}**",
        f"{expected[-1]:,.2f}",
    ]


def test_the_example_is_the_first_row() -> None:
    costs = month(1, 24)
    for sum_of in (costs[0], costs[1], costs[3]):
        assert f"= {sum_of:.2f}" in SECTION
