"""What a contender costs: measured inside its own fresh process, around its run alone."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

_PROC_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """`cpu_seconds` is user and system time of all threads; `memory_bytes` the growth of the peak."""

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int


def tell_cost(run: Callable[[], None]) -> None:
    """Runs on one CPU, as the deployed function does, and prints the cost as the last line of stdout.

    Imports are done by now, so they cost nothing.
    """
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    memory, cpu, begun = _peak_bytes(), _cpu_seconds(), time.perf_counter()
    run()
    cost = Cost(time.perf_counter() - begun, _cpu_seconds() - cpu, _peak_bytes() - memory)
    print(json.dumps(asdict(cost)))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_bytes() -> int:
    """This process's largest resident size so far.

    Linux hands a parent's `ru_maxrss` on to the program it starts, which would hide growth below it; its
    VmHWM starts anew with each program.
    """
    if _PROC_STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _PROC_STATUS.read_text(encoding="ascii"))
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
