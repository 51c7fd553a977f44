"""`python -m tests.bench`: every contender on every workload, in turns, and what came of it as tables."""

from __future__ import annotations

import argparse
import os
import platform
import sys

from .report import Measured, cold_start_table, memory_table, workload_table
from .stage import CONTENDERS, cold_start_seconds, measure, stand_in
from .workloads import DOUBLE, MANY, QUARTER, WORKLOADS, Workload

_COLD_STARTS = 5


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    options.add_argument("--repeat", type=int, default=3, metavar="N", help="repetitions; medians are shown")
    options.add_argument("--quick", action="store_true", help="one repetition: a first impression")
    options.add_argument(
        "--workload",
        action="append",
        choices=[w.name for w in WORKLOADS],
        help="only this one; may be repeated",
    )
    return options


def main() -> int:
    options = parser().parse_args()
    repeat = 1 if options.quick else max(1, options.repeat)
    chosen = [w for w in WORKLOADS if not options.workload or w.name in options.workload]
    print(f"# Benchmark: Python {platform.python_version()}, {os.cpu_count()} CPUs\n")
    measured = {}
    for workload in chosen:
        measured[workload] = _measured(workload, repeat)
        if not workload.ours_only:
            print(workload_table(workload, measured[workload]), end="\n\n", flush=True)
    if {QUARTER, MANY, DOUBLE} <= measured.keys():
        print(memory_table(measured), end="\n\n")
    print(cold_start_table(_cold_starts()))
    return 0


def _measured(workload: Workload, repeat: int) -> Measured:
    """The contenders take turns, so that a busy moment of the machine falls on all of them."""
    contenders = ("ours",) if workload.ours_only else CONTENDERS
    measured: Measured = {name: [] for name in contenders}
    targets: list[str] = []
    with stand_in(workload) as api:
        for number in range(1, repeat + 1):
            for name in contenders:
                print(f"… {workload.name} {number}/{repeat}: {name}", file=sys.stderr, flush=True)
                one = measure(name, workload, api, targets)
                measured[name].append(one)
                targets = one.targets
    return measured


def _cold_starts() -> dict[str, list[float]]:
    statements = ("pass", "import main")
    return {s: [cold_start_seconds(s) for _ in range(_COLD_STARTS)] for s in statements}


if __name__ == "__main__":
    sys.exit(main())
