"""The lock files against pyproject.toml, as far as no index is needed; `make locked` does the rest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

# Comes with pytest.
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
FILES = ["requirements.txt", "tests/requirements.txt"]
ITSELF = "tap-forensics"


def project(text: str | None = None) -> dict[str, Any]:
    given = text or (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, Any] = tomllib.loads(given)["project"]
    return found


def entries(file: str) -> list[str]:
    """Each pinned package with its hashes, as one text."""
    lines = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.lstrip().startswith("#")]


def pins(file: str) -> dict[str, set[str]]:
    """Versions by name: as a rule one, else one for some Pythons and another for the rest."""
    found: dict[str, set[str]] = {}
    for entry in entries(file):
        name, _, version = entry.split(" ", 1)[0].partition("==")
        found.setdefault(name, set()).add(version)
    return found


def wanted(project: dict[str, Any], *extras: str) -> list[Requirement]:
    asked = [Requirement(line) for line in project["dependencies"]]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            requirement = Requirement(line)
            asked += wanted(project, *requirement.extras) if requirement.name == ITSELF else [requirement]
    return asked


def not_locked(asked: list[Requirement], locked: dict[str, set[str]]) -> list[str]:
    """What is asked for and missing in the lock, or there in a version outside its range."""
    versions = {requirement: locked.get(canonicalize_name(requirement.name)) for requirement in asked}
    return [
        requirement.name
        for requirement, found in versions.items()
        if not found or not all(map(requirement.specifier.contains, found))
    ]


def test_what_the_project_asks_for_is_locked_within_its_range() -> None:
    assert not_locked(wanted(project()), pins("requirements.txt")) == []
    assert not_locked(wanted(project(), "dev"), pins("tests/requirements.txt")) == []


@pytest.mark.parametrize(
    ("found", "changed", "named"),
    [
        ('"urllib3>=2.6,<3"', '"urllib3>=3"', "urllib3"),
        ('"msgspec>=0.20,<1",', '"msgspec>=0.20,<1", "left-pad>=1",', "left-pad"),
    ],
)
def test_a_change_that_was_not_locked_is_found(found: str, changed: str, named: str) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert found in text
    asked = wanted(project(text.replace(found, changed)))
    assert not_locked(asked, pins("requirements.txt")) == [named]


def test_the_tests_run_with_the_versions_that_are_deployed() -> None:
    deployed, tested = pins("requirements.txt"), pins("tests/requirements.txt")
    assert {name: tested.get(name) for name in deployed} == deployed


@pytest.mark.parametrize("file", FILES)
def test_every_entry_is_one_version_with_hashes_and_no_address(file: str) -> None:
    assert entries(file)
    for entry in entries(file):
        pattern = r"[a-z0-9.-]+==\S+( ;[^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+"
        assert re.fullmatch(pattern, entry.strip()), entry[:80]
    assert "://" not in (ROOT / file).read_text(encoding="utf-8")
