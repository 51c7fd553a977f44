"""What is wrong with an environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tap_forensics.config.settings import load_settings
from tap_forensics.errors import InvalidSettings
from tests.support.settings import REQUIRED


def faults_of(environ: Mapping[str, str]) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        load_settings(environ)
    assert str(caught.value) == "; ".join(caught.value.faults)
    return caught.value.faults


def fault_of(**variables: str) -> str:
    """The one fault of otherwise sound variables."""
    faults = faults_of(REQUIRED | variables)
    assert len(faults) == 1
    return faults[0]


def mounted(folder: Path, content: bytes) -> dict[str, str]:
    """Sound variables, the secret in a file."""
    path = folder / "secret"
    path.write_bytes(content)
    return {name: REQUIRED[name] for name in ("GCS_BUCKET", "TAP_PRINCIPAL")} | {"TAP_SECRET_FILE": str(path)}


def secret_of(environ: Mapping[str, str]) -> str:
    return load_settings(environ).tap.secret
