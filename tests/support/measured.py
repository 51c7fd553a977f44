"""One run in a process of its own, which prints its figures and how far its memory grew."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from tap_forensics.clock import Clock
from tap_forensics.collect import collect
from tap_forensics.config.settings import load_settings
from tap_forensics.log import run_log
from tap_forensics.process import tune_allocator
from tap_forensics.storage.bucket import open_client

_STATUS = Path("/proc/self/status")
# Of address space, where every thread's stack counts in full: a run that stays small has room to spare.
_MOST_BYTES = 1024 * 1024 * 1024


def peak_bytes() -> int:
    """The most memory this process had so far; on Linux `ru_maxrss` would start at its parent's."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_measured(env: dict[str, str]) -> tuple[dict[str, Any], int]:
    """The figures of one run with this environment, and its growth in bytes."""
    stats, growth, _ = run_heard(env)
    return stats, growth


def run_heard(env: dict[str, str]) -> tuple[dict[str, Any], int, list[str]]:
    """As `run_measured`, and what it logged. A run that wants much more than a function has fails."""
    completed = subprocess.run(
        [sys.executable, "-m", "tests.support.measured"],
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
    )
    *logged, last = completed.stdout.splitlines()
    measured = json.loads(last)
    return measured["figures"], measured["growth_bytes"], logged


if __name__ == "__main__":
    tune_allocator()
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    before = peak_bytes()
    stats = collect(load_settings(os.environ), open_client, Clock(), run_log({}, {}))
    measured = {"figures": stats.as_fields(), "growth_bytes": peak_bytes() - before}
    sys.stdout.write(json.dumps(measured) + "\n")
