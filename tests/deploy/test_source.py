"""What is deployed: main.py, requirements.txt, the package less what stays at home; and it runs alone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest

from tap_forensics.sandbox.events import FunctionServer, post_event
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.deploy.tools import CHECKOUT, command

# About one second on two quiet cores; see deploy/README.md.
COLD_START_AT_MOST = timedelta(seconds=10)


def run(*words: str | Path) -> str:
    done = subprocess.run(  # noqa: S603 (commands of ours)
        [str(word) for word in words], capture_output=True, text=True, check=False, cwd=CHECKOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def to_be_deployed() -> set[str]:
    """By git's word: what the archive shall hold."""
    listed = run(
        *(command("git"), "ls-files", "--cached", "--others", "--exclude-standard"),
        *("main.py", "requirements.txt", "tap_forensics"),
    )
    names = set(listed.split())
    at_home = ("tap_forensics/sandbox/", "tap_forensics/cli/", "tap_forensics/__main__.py")
    return {name for name in names if not name.startswith(at_home)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("archive") / "new folder" / "source.zip"
    run(sys.executable, "deploy/archive.py", made)
    return made


def test_the_archive_holds_exactly_what_is_deployed(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        assert sorted(packed.namelist()) == sorted(to_be_deployed())
        assert packed.read("main.py") == (CHECKOUT / "main.py").read_bytes()


def test_the_same_source_gives_the_same_archive(archive: Path, tmp_path: Path) -> None:
    run(sys.executable, "deploy/archive.py", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_gcloud_would_upload_the_same_files() -> None:
    listed = run(command("gcloud"), "meta", "list-files-for-upload", str(CHECKOUT))
    assert sorted(listed.split()) == sorted(to_be_deployed())


@pytest.mark.timeout(600)
def test_the_archive_runs_with_nothing_but_its_requirements_and_takes_a_rotated_secret(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "source")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes")
    run(*pip, "-r", tmp_path / "source" / "requirements.txt")
    monkeypatch.setattr(sys, "executable", str(python))

    secrets = {name: tmp_path / name.lower() for name in ("TAP_PRINCIPAL_FILE", "TAP_SECRET_FILE")}
    for mounted in secrets.values():
        mounted.write_text(" ", encoding="utf-8")
    now = utc_now()
    world = World(3, start=now - timedelta(hours=2), end=now)
    with TapServer(world) as tap, FakeBucket() as bucket:
        env = {
            "K_SERVICE": "tap-forensics-collector",
            "GCS_BUCKET": bucket.name,
            "STATE_KEY": "state/tap-forensics/state.json",
            "STORAGE_EMULATOR_HOST": bucket.url,
            "TAP_API_BASE": tap.url,
            **{name: str(mounted) for name, mounted in secrets.items()},
        }
        begun = utc_now()
        with FunctionServer(env, source=tmp_path / "source" / "main.py") as server:
            assert utc_now() - begun < COLD_START_AT_MOST
            # As first deployed: a blank is a missing credential, said once, and not asked again for.
            assert post_event(server.url)[0] == 200
            assert server.wait_for_log("add a version to the mounted secret")
            secrets["TAP_PRINCIPAL_FILE"].write_text("demo-principal\n", encoding="utf-8")
            secrets["TAP_SECRET_FILE"].write_text("demo-secret\n", encoding="utf-8")
            assert post_event(server.url)[0] == 200
            assert server.wait_for_log("Run complete")
        names = {blob.name for blob in bucket.client().list_blobs(bucket.name)}
    assert "state/tap-forensics/state.json" in names
    assert any(name.startswith("tap-forensics/tap_forensics_") for name in names)
    assert "tap-forensics/state.json" not in names
