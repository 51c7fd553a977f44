"""The command line in a process of its own, and the most memory that it had."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.report.commands import command
from tests.support.tools import CHECKOUT

# The peak of a child's child, and of no other.
_MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"\\n{done.returncode} {peak // (1024 if sys.platform == 'linux' else 1024 * 1024)}")
"""


@dataclass(frozen=True)
class Measured:
    code: int
    peak_mebibytes: int
    seconds: float
    stdout: str
    stderr: str


def measured(*words: object, env: Mapping[str, str] | None = None) -> Measured:
    """`tap-forensics WORDS`."""
    started = time.monotonic()
    completed = subprocess.run(  # noqa: S603 (this Python, with arguments of ours)
        [sys.executable, "-c", _MEASURED, *command(*words)],
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
        env={**os.environ, **(env or {})},
    )
    stdout, _, last = completed.stdout.rstrip("\n").rpartition("\n")
    code, peak = map(int, last.split())
    return Measured(code, peak, time.monotonic() - started, stdout, completed.stderr)
