"""A release: the same bytes from every place and Python, and in them what belongs there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from deploy.release import read_release
from tests.support.tools import CHECKOUT, tracked_files

LOCK = CHECKOUT / "requirements.txt"


def built(python: Path | str, checkout: Path, folder: Path) -> dict[str, bytes]:
    words = (python, "deploy/release.py", folder)
    completed = subprocess.run(words, capture_output=True, text=True, check=False, cwd=checkout)  # noqa: S603
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def environments() -> list[Path]:
    """Of other Pythons, as `make others` makes them, if they are of today's lock file."""
    locked_at = (CHECKOUT / "tests" / "requirements.txt").stat().st_mtime
    made = [*CHECKOUT.glob(".venv/ready"), *CHECKOUT.glob(".venv-3.*/ready")]
    of_today = [ready.parent for ready in made if ready.stat().st_mtime >= locked_at]
    return [folder / "bin" / "python" for folder in of_today if folder != Path(sys.prefix)]


def one(release: dict[str, bytes], ending: str) -> str:
    (name,) = (name for name in release if name.endswith(ending))
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("release")


@pytest.fixture(scope="module")
def release(folder: Path) -> dict[str, bytes]:
    return built(sys.executable, CHECKOUT, folder)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The same files in another place, with other times and rights."""
    for name in tracked_files():
        copy = tmp_path / "elsewhere" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, copy)
        copy.chmod(0o600)
    return tmp_path / "elsewhere"


@pytest.mark.slow
def test_another_place_gives_the_same_bytes(
    release: dict[str, bytes], elsewhere: Path, tmp_path: Path
) -> None:
    assert built(sys.executable, elsewhere, tmp_path / "dist") == release


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_another_python_gives_the_same_bytes(release: dict[str, bytes], tmp_path: Path) -> None:
    others = environments()
    if not others:
        pytest.skip("no environment of another Python is here: `make others` makes them and compares")
    for number, python in enumerate(others):
        assert built(python, CHECKOUT, tmp_path / str(number)) == release, python


@pytest.mark.slow
def test_one_changed_letter_gives_another_release(
    release: dict[str, bytes], elsewhere: Path, tmp_path: Path
) -> None:
    with (elsewhere / "main.py").open("a", encoding="utf-8") as file:
        file.write("#")
    changed = built(sys.executable, elsewhere, tmp_path / "dist")
    # The wheel is without main.py.
    differing = {name for name in release if release[name] != changed[name]}
    assert differing == {one(release, ".zip"), one(release, ".tar.gz"), "SHA256SUMS"}


def test_the_checksums_are_those_of_every_other_file(release: dict[str, bytes]) -> None:
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in release.items()}
    del expected["SHA256SUMS"]
    lines = release["SHA256SUMS"].decode().splitlines()
    assert {name: digest for digest, name in (line.split("  ") for line in lines)} == expected


def locked(text: str) -> dict[tuple[str, str], set[str]]:
    entries = re.findall(r"^([\w.-]+)==(\S+)((?:.*\\\n)*.*)", text, re.M)
    return {(name, version): set(re.findall(r"sha256:(\w{64})", rest)) for name, version, rest in entries}


def listed(sbom: bytes) -> dict[tuple[str, str], set[str]]:
    def hashes(component: dict[str, list[dict[str, list[dict[str, str]]]]]) -> set[str]:
        places = component["externalReferences"]
        return {
            entry["content"] for place in places for entry in place["hashes"] if entry["alg"] == "SHA-256"
        }

    components = json.loads(sbom)["components"]
    assert all(c["purl"] == f"pkg:pypi/{c['name']}@{c['version']}" for c in components)
    return {(c["name"], c["version"]): hashes(c) for c in components}


def test_the_sbom_lists_exactly_what_is_locked(release: dict[str, bytes]) -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert listed(release[one(release, ".cdx.json")]) == locked(text)


def test_the_sbom_is_of_this_version(release: dict[str, bytes]) -> None:
    name = one(release, ".cdx.json")
    component = json.loads(release[name])["metadata"]["component"]
    assert name == f"{component['name']}-{component['version']}.cdx.json"


def test_the_wheel_holds_the_whole_package(release: dict[str, bytes], folder: Path) -> None:
    expected = set(tracked_files("tap_forensics")) - {"tap_forensics/sandbox/requirements.txt"}
    with zipfile.ZipFile(folder / one(release, ".whl")) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert {"tap_forensics/py.typed", "tap_forensics/report/page/page.html"} <= packed


def test_the_source_archive_gives_the_same_wheel(
    release: dict[str, bytes], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(folder / one(release, ".tar.gz")) as packed:
        packed.extractall(tmp_path, filter="data")
        (epoch,) = {member.mtime for member in packed.getmembers()}
    assert epoch == read_release(CHECKOUT).epoch
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(epoch)))
    (source,) = tmp_path.iterdir()
    words = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path)
    subprocess.run(words, check=True, capture_output=True, cwd=source)  # noqa: S603
    wheel = one(release, ".whl")
    assert (tmp_path / wheel).read_bytes() == release[wheel]


def test_the_function_is_what_the_archive_for_deployment_is(
    release: dict[str, bytes], tmp_path: Path
) -> None:
    words = (sys.executable, "deploy/archive.py", tmp_path / "source.zip")
    subprocess.run(words, check=True, cwd=CHECKOUT)  # noqa: S603
    assert (tmp_path / "source.zip").read_bytes() == release[one(release, "-function.zip")]
