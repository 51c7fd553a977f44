"""What a release says of itself; and a checkout that is not ready is refused with the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.release import NotReady, check_tag, read_release
from tests.support.tools import CHECKOUT

CHANGELOG = """# Changelog

## [0.3.0] - Unreleased

Later.

## [0.2.0] - 2026-03-01

### Added

- A thing, see [docs](docs/a.md#b), [elsewhere](https://example.com/c) and [below](#d).

## [0.1.0] - 2026-01-02

Earlier.

[0.2.0]: https://example.com/0.2.0
"""


def checkout(folder: Path, *, version: str = "0.2.0", stated: str | None = None) -> Path:
    lines = [
        "[project]",
        f'version = "{version}"',
        "[project.urls]",
        'Homepage = "https://example.com/tap-forensics"',
    ]
    (folder / "pyproject.toml").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tap_forensics").mkdir()
    text = f'__version__ = "{stated or version}"\n'
    (folder / "tap_forensics" / "__init__.py").write_text(text, encoding="utf-8")
    (folder / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    return folder


def test_the_notes_are_the_section_of_the_version_with_links_that_work_anywhere(tmp_path: Path) -> None:
    release = read_release(checkout(tmp_path))
    docs = "https://example.com/tap-forensics/blob/v0.2.0/docs/a.md#b"
    assert release.notes == (
        f"### Added\n\n- A thing, see [docs]({docs}), [elsewhere](https://example.com/c) and [below](#d)."
    )
    assert release.epoch == 1772323200


def test_the_last_section_ends_before_the_addresses(tmp_path: Path) -> None:
    assert read_release(checkout(tmp_path, version="0.1.0")).notes == "Earlier."


@pytest.mark.parametrize("version", ["0.3.0", "0.2", "0.20", "1.0.0"])
def test_a_version_without_a_dated_section_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(NotReady, match=rf"add the section `## \[{version}\] - YYYY-MM-DD`"):
        read_release(checkout(tmp_path, version=version))


def test_two_versions_in_one_checkout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"set __version__ to 0\.2\.0, as in pyproject\.toml"):
        read_release(checkout(tmp_path, stated="0.1.0"))


def test_a_tag_of_another_version_is_refused(tmp_path: Path) -> None:
    release = read_release(checkout(tmp_path))
    check_tag(release, "v0.2.0")
    with pytest.raises(NotReady, match=r"tag the commit v0\.2\.0"):
        check_tag(release, "v0.2.1")


def test_a_refusal_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    words = (sys.executable, "deploy/release.py", "--tag", "v0.0.0", tmp_path / "dist")
    refused = subprocess.run(words, capture_output=True, text=True, check=False, cwd=CHECKOUT)  # noqa: S603
    assert refused.returncode == 1
    assert refused.stderr.startswith("Not released. The tag is v0.0.0, ")
    assert refused.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.whl").touch()
    words = (sys.executable, "deploy/release.py", tmp_path)
    refused = subprocess.run(words, capture_output=True, text=True, check=False, cwd=CHECKOUT)  # noqa: S603
    assert refused.stderr == f"Not released. {tmp_path} is not empty: remove what is in it.\n"
    assert refused.returncode == 1
