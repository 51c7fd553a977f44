"""Makes the archive that is deployed: python3 archive.py ARCHIVE.zip. Needs nothing but Python.

The same files give the same bytes, on any machine, with any version of Python.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
# What only a developer and an operator run.
_AT_HOME = (
    "tap_forensics/audit/",
    "tap_forensics/sandbox/",
    "tap_forensics/cli/",
    "tap_forensics/report/",
    "tap_forensics/secops/",
    "tap_forensics/__main__.py",
)
# The earliest time a ZIP can hold, instead of when a file was checked out.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


class SymbolicLink(Exception):
    """A link's content depends on the machine, and may be a file from anywhere on it."""


def deployed_files(checkout: Path) -> list[str]:
    """main.py, requirements.txt and the package less the sandbox and the command line; .gcloudignore says the
    same to gcloud. Raises `SymbolicLink`.
    """
    package = checkout / "tap_forensics"
    paths = [checkout / "main.py", checkout / "requirements.txt", package, *package.rglob("*")]
    named = {path.relative_to(checkout).as_posix(): path for path in paths}
    kept = {name: path for name, path in named.items() if not name.startswith(_AT_HOME)}
    if links := sorted(name for name, path in kept.items() if path.is_symlink()):
        raise SymbolicLink(f"{', '.join(links)}: a symbolic link is not packed; put the file itself there")
    return sorted(name for name in kept if name == "requirements.txt" or name.endswith((".py", "/py.typed")))


def write_archive(checkout: Path, archive: Path) -> None:
    names = deployed_files(checkout)
    archive.parent.mkdir(parents=True, exist_ok=True)
    # Not compressed: versions of zlib differ in what they make of the same bytes.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name in names:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, (checkout / name).read_bytes())


if __name__ == "__main__":
    try:
        write_archive(CHECKOUT, Path(sys.argv[1]))
    except SymbolicLink as refused:
        sys.exit(f"archive.py: {refused}")
