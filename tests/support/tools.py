"""The real terraform and gcloud, and what lets them work without an account: found, or said to be missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def command(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def beside_the_checkout(variable: str, place: str) -> Path:
    """A tool that is no part of this project: where the variable says, or at `place` next to the checkout."""
    found = Path(os.environ.get(variable) or CHECKOUT.parent / "shared" / "tools" / place)
    if not found.exists():
        pytest.skip(f"{found} is not there; {variable} says where else to look")
    return found
