"""Makes the archive that is deployed: python3 archive.py ARCHIVE.zip. Needs nothing but Python."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
# What only a developer and an operator run.
_AT_HOME = (
    "tap_forensics/sandbox/",
    "tap_forensics/cli/",
    "tap_forensics/report/",
    "tap_forensics/secops/",
    "tap_forensics/__main__.py",
)
# The earliest time a ZIP can hold: the same files give the same bytes, whenever they were checked out.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def deployed_files(checkout: Path) -> list[str]:
    """main.py, requirements.txt and the package less the sandbox and the command line; .gcloudignore says the
    same to gcloud.
    """
    package = [*checkout.glob("tap_forensics/**/*.py"), *checkout.glob("tap_forensics/**/py.typed")]
    names = {path.relative_to(checkout).as_posix() for path in package}
    at_home = {name for name in names if name.startswith(_AT_HOME)}
    return sorted({"main.py", "requirements.txt"} | names - at_home)


def write_archive(checkout: Path, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in deployed_files(checkout):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, (checkout / name).read_bytes(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    write_archive(CHECKOUT, Path(sys.argv[1]))
