"""The command line in a process of its own, as its user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from tests.support.tools import CHECKOUT


def command(*words: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "tap_forensics", *map(str, words)]


def started(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (this Python, with arguments of ours)
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=CHECKOUT
    )


def run(
    *words: object, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`tap-forensics WORDS`; warnings are errors there, too."""
    return subprocess.run(  # noqa: S603 (this Python, with arguments of ours)
        command(*words),
        input=stdin,
        capture_output=True,
        check=False,
        cwd=CHECKOUT,
        env={**os.environ, **(env or {})},
    )
