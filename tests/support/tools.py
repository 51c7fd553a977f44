"""The checkout, and the tools of this machine that tests run: found, or said to be missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def command(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def tracked_files(*places: str) -> list[str]:
    """What git has or would add, below these places (default: everywhere), as paths in the checkout."""
    words = (command("git"), "ls-files", "-z", "--cached", "--others", "--exclude-standard", *places)
    listed = subprocess.run(words, capture_output=True, text=True, check=True, cwd=CHECKOUT)  # noqa: S603
    return [name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).exists()]
