"""Builds a release: python deploy/release.py FOLDER. What the folder then holds depends on the checkout only,
not on the Python, the clock or the user.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
# A section of the changelog: up to the next one, or to the addresses at the end.
_SECTION = r"^## \[{version}\] - (\d{{4}}-\d\d-\d\d)\n(.*?)(?=^## |^\[[^\]\n]+\]: |\Z)"
_RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)]+)\)")
_SBOM = (
    # A lock file is a list: that the SBOM has no tree is no news.
    *("-W", "ignore:The Component this BOM", "-m", "cyclonedx_py", "requirements"),
    *("--output-reproducible", "--spec-version", "1.6", "--pyproject", "pyproject.toml"),
)


class NotReady(Exception):
    """The checkout is not ready to be released; the sentence names the remedy."""


@dataclass(frozen=True)
class Release:
    version: str
    notes: str
    # Midnight of its day, in seconds: the time of every file in the archives.
    epoch: int


def read_release(checkout: Path) -> Release:
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version: str = project["version"]
    stated = (checkout / "tap_forensics" / "__init__.py").read_text(encoding="utf-8")
    if f'__version__ = "{version}"' not in stated:
        raise NotReady(f"tap_forensics/__init__.py: set __version__ to {version}, as in pyproject.toml.")
    changelog = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(_SECTION.format(version=re.escape(version)), changelog, re.M | re.S)
    if not found or not found[2].strip():
        raise NotReady(f"CHANGELOG.md: add the section `## [{version}] - YYYY-MM-DD` with what users notice.")
    # Where the notes are shown, the files of the checkout are not beside them.
    address = f"{project['urls']['Homepage']}/blob/v{version}"
    notes = _RELATIVE_LINK.sub(rf"]({address}/\1)", found[2].strip())
    day = datetime.strptime(found[1], "%Y-%m-%d").replace(tzinfo=UTC)
    return Release(version, notes, int(day.timestamp()))


def check_tag(release: Release, tag: str | None) -> None:
    if tag not in (None, f"v{release.version}"):
        raise NotReady(f"The tag is {tag}, the version {release.version}: tag the commit v{release.version}.")


def build(checkout: Path, release: Release, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise NotReady(f"{folder} is not empty: remove what is in it.")
    named = folder / f"tap-forensics-{release.version}"
    run = partial(_run, checkout, release.epoch)
    run("deploy/archive.py", f"{named}-function.zip")
    run("-m", "hatchling", "build", "--directory", str(folder))
    run(*_SBOM, "--output-file", f"{named}.cdx.json", "requirements.txt")
    (folder / "RELEASE_NOTES.md").write_text(release.notes + "\n", encoding="utf-8")
    (folder / "SHA256SUMS").write_text(_checksums(folder), encoding="utf-8")


def _run(checkout: Path, epoch: int, *words: str) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run((sys.executable, *words), check=True, cwd=checkout, env=environment)  # noqa: S603 (ours)


def _checksums(folder: Path) -> str:
    """As `sha256sum --check` reads them."""
    files = sorted(folder.iterdir())
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("folder", type=Path)
    words.add_argument("--tag", help="fail if the version is another")
    given = words.parse_args()
    try:
        release = read_release(CHECKOUT)
        check_tag(release, given.tag)
        build(CHECKOUT, release, given.folder.absolute())
    except NotReady as error:
        sys.exit(f"Not released. {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"Not released. This failed, see above: {' '.join(error.cmd)}")


if __name__ == "__main__":
    main()
