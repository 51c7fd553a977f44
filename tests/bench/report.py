"""Measurements → tables: medians, and ratios of medians beside their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from .stage import CONTENDERS, Measurement
from .workloads import CAMPAIGNS, DOUBLE, IDLE, MANY, QUARTER, SMALL, Workload

_MIB = 1024 * 1024
_LABELS = {"plain_loop": "a: plain loop", "ours": "b: ours", "floor": "c: floor"}

Measured = dict[str, list[Measurement]]


@dataclass(frozen=True)
class Limit:
    """What a figure is to reach: at most, or at least, this much."""

    at_most: float | None = None
    at_least: float | None = None

    def met_by(self, value: float) -> bool:
        over = self.at_most is not None and value > self.at_most
        under = self.at_least is not None and value < self.at_least
        return not (over or under)

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:.3g}"
        return f"≥ {self.at_least:.3g}"


WALL_OVER_FLOOR = {CAMPAIGNS: Limit(at_most=1.15), SMALL: Limit(at_most=1.3)}
SECONDS_OVER_FLOOR = {IDLE: Limit(at_most=0.15)}
TIMES_FASTER = {CAMPAIGNS: Limit(at_least=8)}
CPU_SHARE = {CAMPAIGNS: Limit(at_most=1 / 5), MANY: Limit(at_most=1 / 3)}
MEMORY_MIB = {CAMPAIGNS: Limit(at_most=80), MANY: Limit(at_most=80)}
# What the noise between two runs may be.
MEMORY_GROWTH = Limit(at_most=1.2)


def wall_seconds(one: Measurement) -> float:
    return one.cost.wall_seconds


def cpu_seconds(one: Measurement) -> float:
    return one.cost.cpu_seconds


def memory_mib(one: Measurement) -> float:
    return one.cost.memory_bytes / _MIB


def written_mib(one: Measurement) -> float:
    return one.bytes_written / _MIB


def workload_table(workload: Workload, measured: Measured) -> str:
    repeats = len(measured["ours"])
    lines = [
        f"## {workload.name}: {workload.title()} (median of {repeats})",
        "",
        "| contender | wall s | CPU s | memory growth MiB | SIEM + forensics calls | written MiB |",
        "|---|---:|---:|---:|---:|---:|",
        *(_contender_row(name, measured[name]) for name in CONTENDERS),
        "",
        "| ratio of medians | measured | target | |",
        "|---|---:|---:|---|",
        *_ratio_rows(workload, measured),
    ]
    return "\n".join(lines)


def _contender_row(name: str, repeats: list[Measurement]) -> str:
    calls = f"{repeats[-1].calls_to('/v2/siem/')} + {repeats[-1].calls_to('/v2/forensics')}"
    wall, cpu = _spread(repeats, wall_seconds), _median(repeats, cpu_seconds)
    memory, written = _median(repeats, memory_mib), _median(repeats, written_mib)
    return f"| {_LABELS[name]} | {wall} | {cpu:.2f} | {memory:.1f} | {calls} | {written:.1f} |"


def _ratio_rows(workload: Workload, measured: Measured) -> list[str]:
    def ratio(above: str, below: str, figure: Callable[[Measurement], float]) -> float:
        return _median(measured[above], figure) / _median(measured[below], figure)

    return [
        _row("b ÷ c, wall", ratio("ours", "floor", wall_seconds), WALL_OVER_FLOOR.get(workload)),
        _row("b - c, wall s", _seconds_over_floor(measured), SECONDS_OVER_FLOOR.get(workload)),
        _row(
            "a ÷ b, wall (times faster)",
            ratio("plain_loop", "ours", wall_seconds),
            TIMES_FASTER.get(workload),
        ),
        _row("b ÷ a, CPU", ratio("ours", "plain_loop", cpu_seconds), CPU_SHARE.get(workload)),
        _row("b, memory growth MiB", _median(measured["ours"], memory_mib), MEMORY_MIB.get(workload)),
        _row("b, forensics calls a threat", _calls_a_threat(workload, measured), _calls_limit(workload)),
    ]


def _seconds_over_floor(measured: Measured) -> float:
    return _median(measured["ours"], wall_seconds) - _median(measured["floor"], wall_seconds)


def _calls_a_threat(workload: Workload, measured: Measured) -> float:
    return max(one.calls_to("/v2/forensics") for one in measured["ours"]) / max(1, workload.threats)


def _calls_limit(workload: Workload) -> Limit | None:
    return Limit(1, 1) if workload.threats else None


def memory_table(by_workload: dict[Workload, Measured]) -> str:
    """Whether memory grows with the number of threats, all else equal."""
    mib = {w: _median(by_workload[w]["ours"], memory_mib) for w in (QUARTER, MANY, DOUBLE)}
    return "\n".join(
        [
            "## Memory of ours by number of threats",
            "",
            "| workload | memory growth MiB | written MiB |",
            "|---|---:|---:|",
            *(
                f"| {w.title()} | {mib[w]:.1f} | {_median(by_workload[w]['ours'], written_mib):.1f} |"
                for w in mib
            ),
            "",
            "| ratio of medians | measured | target | |",
            "|---|---:|---:|---|",
            _row("2,000 ÷ 500 threats", mib[MANY] / mib[QUARTER], None),
            _row("4,000 ÷ 2,000 threats", mib[DOUBLE] / mib[MANY], MEMORY_GROWTH),
            "",
            "The first batches fill the buffers between fetching and writing; then it must go no further.",
        ]
    )


def cold_start_table(seconds: dict[str, list[float]]) -> str:
    rows = [f"| `{what}` | {median(each) * 1000:.0f} |" for what, each in seconds.items()]
    repeats = len(next(iter(seconds.values())))
    return "\n".join(
        [f"## Cold start (median of {repeats})", "", "| fresh interpreter | ms |", "|---|---:|", *rows]
    )


def _row(what: str, value: float, limit: Limit | None) -> str:
    verdict = "" if limit is None else "met" if limit.met_by(value) else "**missed**"
    return f"| {what} | {value:.4g} | {limit or ''} | {verdict} |"


def _median(repeats: list[Measurement], figure: Callable[[Measurement], float]) -> float:
    return median(figure(one) for one in repeats)


def _spread(repeats: list[Measurement], figure: Callable[[Measurement], float]) -> str:
    """The median, and how far the repetitions lie apart, which says how far to trust it."""
    values = [figure(one) for one in repeats]
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
