"""What is deployed: main.py, requirements.txt, the package less what stays at home; and it runs alone."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest

from tap_forensics.sandbox.cloudevents import FunctionServer, post_event
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.support.tools import CHECKOUT, command, tracked_files

# From starting the server to its first answer; deploy/README.md lists what `--log-cli-level=INFO` shows here.
COLD_START_AT_MOST = timedelta(seconds=10)
AT_HOME = (
    "tap_forensics/audit/",
    "tap_forensics/sandbox/",
    "tap_forensics/cli/",
    "tap_forensics/report/",
    "tap_forensics/secops/",
    "tap_forensics/__main__.py",
)


def run(*words: str | Path) -> str:
    completed = subprocess.run(  # noqa: S603 (commands of ours)
        [str(word) for word in words], capture_output=True, text=True, check=False, cwd=CHECKOUT
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def to_be_deployed() -> set[str]:
    """By git's word: what the archive shall hold."""
    names = tracked_files("main.py", "requirements.txt", "tap_forensics")
    return {name for name in names if not name.startswith(AT_HOME)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("archive") / "new folder" / "source.zip"
    run(sys.executable, "deploy/archive.py", made)
    return made


def test_the_archive_holds_exactly_what_is_deployed(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        assert sorted(packed.namelist()) == sorted(to_be_deployed())
        assert packed.read("main.py") == (CHECKOUT / "main.py").read_bytes()


@pytest.fixture
def a_checkout(tmp_path: Path) -> Path:
    """The parts that all three rules speak of, whichever of them this version has."""
    for name in (*AT_HOME, "tap_forensics/", "tap_forensics/sandbox/deep/", "tap_forensics/cli/deep/"):
        file = tmp_path / name / "more.py" if name.endswith("/") else tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for name in ("main.py", "requirements.txt", "tap_forensics/cli.py"):
        (tmp_path / name).touch()
    for name in (".gcloudignore", "deploy/archive.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((CHECKOUT / name).read_bytes())
    return tmp_path


KEPT = ["main.py", "requirements.txt", "tap_forensics/cli.py", "tap_forensics/more.py"]


def test_what_stays_at_home_is_left_out_by_the_archive(a_checkout: Path) -> None:
    run(sys.executable, a_checkout / "deploy" / "archive.py", a_checkout / "made.zip")
    with zipfile.ZipFile(a_checkout / "made.zip") as packed:
        assert packed.namelist() == KEPT


def test_what_stays_at_home_is_left_out_by_gcloud(a_checkout: Path) -> None:
    listed = run(command("gcloud"), "meta", "list-files-for-upload", str(a_checkout))
    assert sorted(listed.split()) == KEPT


def test_terraform_leaves_out_the_same() -> None:
    storage = (CHECKOUT / "deploy" / "terraform" / "storage.tf").read_text(encoding="utf-8")
    assert set(re.findall(r'"(tap_forensics/[^"*]+)"', storage)) == set(AT_HOME)


def test_the_same_source_gives_the_same_archive(archive: Path, tmp_path: Path) -> None:
    """Whenever it was checked out, and by whom."""
    for name in to_be_deployed():
        copy = tmp_path / "elsewhere" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((CHECKOUT / name).read_bytes())
        copy.chmod(0o600)
        os.utime(copy, (1_700_000_000, 1_700_000_000))
    script = tmp_path / "elsewhere" / "deploy" / "archive.py"
    script.parent.mkdir()
    script.write_bytes((CHECKOUT / "deploy" / "archive.py").read_bytes())
    run(sys.executable, script, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_nothing_in_the_archive_is_up_to_the_version_of_zlib(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        kinds = {
            (entry.compress_type, entry.create_system, entry.external_attr) for entry in packed.infolist()
        }
    assert kinds == {(zipfile.ZIP_STORED, 3, 0o644 << 16)}


@pytest.mark.parametrize("linked", ["requirements.txt", "tap_forensics/more.py", "tap_forensics/folder"])
def test_a_symbolic_link_is_refused_by_name(a_checkout: Path, linked: str) -> None:
    outside = a_checkout.parent / "outside"
    outside.mkdir(exist_ok=True)
    (a_checkout / linked).unlink(missing_ok=True)
    (a_checkout / linked).symlink_to(outside)
    made = a_checkout / "made.zip"
    words = [sys.executable, str(a_checkout / "deploy" / "archive.py"), str(made)]
    refused = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 (our own script)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"archive.py: {linked}: a symbolic link is not packed; put the file itself there\n"
    )
    assert not made.exists()


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
            # As first deployed: a blank is a missing credential, said once, and not asked again for.
            assert post_event(server.url)[0] == 200
            cold_start = utc_now() - begun
            logging.getLogger(__name__).info("cold start: %.2f s", cold_start.total_seconds())
            assert cold_start < COLD_START_AT_MOST
            assert server.wait_for_log("add a version to the mounted secret")
            secrets["TAP_PRINCIPAL_FILE"].write_text("demo-principal\n", encoding="utf-8")
            secrets["TAP_SECRET_FILE"].write_text("demo-secret\n", encoding="utf-8")
            assert post_event(server.url)[0] == 200
            assert server.wait_for_log("Run complete")
        names = {blob.name for blob in bucket.client().list_blobs(bucket.name)}
    assert "state/tap-forensics/state.json" in names
    assert any(name.startswith("tap-forensics/tap_forensics_") for name in names)
    assert "tap-forensics/state.json" not in names
