"""The image: it holds what the archive does and starts as the function does; docker runs it, if present."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tap_forensics.sandbox.cloudevents import post_event
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.processes import free_port, is_free
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.deploy.facts import FACTS
from tests.support.scenes import wait_until
from tests.support.tools import CHECKOUT, command, tracked_files

DOCKERFILE = CHECKOUT / "deploy" / "Dockerfile"
IMAGE = "tap-forensics:test"


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's instructions with their words, stage by stage."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, "\n".join(lines).replace("\\\n", "").splitlines()):
        name, _, words = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, words))
    return found


def words_of(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [words for instruction, words in stage if instruction == name]


def readable() -> list[str]:
    """What docker may read of the checkout: nothing but what is allowed by name."""
    rules = (CHECKOUT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    first, *others = [rule for rule in rules if not rule.startswith("#")]
    assert first == "*"
    return tracked_files(*(rule.removeprefix("!") for rule in others if rule.startswith("!")))


def archived(folder: Path) -> dict[str, bytes]:
    words = (sys.executable, "deploy/archive.py", folder / "source.zip")
    subprocess.run(words, check=True, cwd=CHECKOUT)  # noqa: S603
    with zipfile.ZipFile(folder / "source.zip") as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def test_the_image_gets_what_the_archive_holds(tmp_path: Path) -> None:
    """The stage `source`, done here: from what docker may read to the folder that is copied."""
    _, source, final = stages()
    assert words_of(source, "COPY") == [". ."]
    for name in readable():
        copy = tmp_path / "checkout" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, copy)
    (run,) = words_of(source, "RUN")
    here = run.replace("/function", f"{tmp_path}/function").replace("python ", f"{sys.executable} ")
    subprocess.run(here, shell=True, check=True, cwd=tmp_path / "checkout")  # noqa: S602 (the Dockerfile's own)
    files = [path for path in (tmp_path / "function").rglob("*") if path.is_file()]
    copied = {path.relative_to(tmp_path / "function").as_posix(): path.read_bytes() for path in files}
    assert copied == archived(tmp_path)
    assert words_of(final, "COPY") == [
        "--from=source /function/requirements.txt .",
        "--from=source /function .",
    ]
    assert words_of(final, "ADD") == []


def test_the_base_is_slim_pinned_and_of_the_deployed_runtime() -> None:
    (base,) = words_of(stages()[0], "FROM")
    pinned = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+@sha256:[0-9a-f]{64} AS base", base)
    assert pinned
    assert f"python{pinned[1]}{pinned[2]}" == FACTS["function"]["runtime"]
    assert [words_of(stage, "FROM")[0].split()[0] for stage in stages()[1:]] == ["base", "base"]


def test_it_installs_what_is_locked_and_starts_as_the_function_does_without_rights() -> None:
    final = stages()[-1]
    (install,) = words_of(final, "RUN")
    assert install.endswith("-r requirements.txt")
    assert "--require-hashes" in install
    assert final[-2] == ("USER", "65532:65532")
    entry = FACTS["function"]["entry_point"]
    assert final[-1] == (
        "CMD",
        f'["functions-framework", "--target={entry}", "--signature-type=cloudevent"]',
    )


def test_the_page_deploys_it_with_the_limits_and_secrets_of_the_function() -> None:
    page = (CHECKOUT / "docs" / "how-to" / "image.md").read_text(encoding="utf-8")
    function = FACTS["function"]
    limits = {name: function[name] for name in ("cpu", "memory", "concurrency")}
    limits |= {"timeout": function["timeout_seconds"], "max-instances": function["max_instances"]}
    for name, limit in limits.items():
        assert f"--{name} {limit} " in page
    for place, secret in FACTS["mounted"].items():
        assert f"{place}={secret}" in page
    written = dict(re.findall(r"\b([A-Z_]+)=([^,\s]+)", page))
    assert {**written, "GCS_BUCKET": FACTS["environment"]["GCS_BUCKET"]} == FACTS["environment"]


def docker(*words: str) -> str:
    completed = subprocess.run(  # noqa: S603
        (command("docker"), *words), capture_output=True, text=True, check=False, cwd=CHECKOUT
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def works(*words: str) -> bool:
    return subprocess.run((command("docker"), *words), capture_output=True, check=False).returncode == 0  # noqa: S603


def logged(container: str) -> str:
    words = (command("docker"), "logs", container)
    both = subprocess.run(  # noqa: S603
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return both.stdout


@pytest.fixture
def image() -> str:
    base = words_of(stages()[0], "FROM")[0].split()[0]
    if not works("info"):
        pytest.skip("docker has no daemon here")
    if sys.platform != "linux":
        pytest.skip("only on Linux does a container reach this machine's loopback")
    if not works("image", "inspect", base) and not works("pull", base):
        pytest.skip(f"docker cannot get {base} here")
    docker("build", "--file", str(DOCKERFILE), "--tag", IMAGE, ".")
    return IMAGE


@pytest.fixture
def world() -> Iterator[tuple[TapServer, FakeBucket]]:
    now = utc_now()
    with TapServer(World(3, start=now - timedelta(hours=2), end=now)) as tap, FakeBucket() as bucket:
        yield tap, bucket


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_runs_as_nobody_and_collects(
    image: str, world: tuple[TapServer, FakeBucket], tmp_path: Path
) -> None:
    tap, bucket = world
    port = free_port()
    env = {
        "PORT": str(port),
        "K_SERVICE": "tap-forensics-collector",
        "GCS_BUCKET": bucket.name,
        "STORAGE_EMULATOR_HOST": bucket.url,
        "TAP_API_BASE": tap.url,
        "TAP_PRINCIPAL": "demo-principal",
        "TAP_SECRET": "demo-secret",
    }
    given = [f"--env={name}={value}" for name, value in env.items()]
    name = docker("run", "--detach", "--network=host", *given, image).strip()
    try:
        assert docker("exec", name, "id", "-u").strip() == "65532"
        listed = docker("exec", name, "find", ".", "-type", "f").split()
        assert sorted(path.removeprefix("./") for path in listed) == sorted(archived(tmp_path))
        wait_until(lambda: not is_free(port))
        assert post_event(f"http://127.0.0.1:{port}")[0] == 200
        wait_until(lambda: "Run complete" in logged(name))
    finally:
        docker("rm", "--force", name)
    names = {blob.name for blob in bucket.client().list_blobs(bucket.name)}
    assert any(name.startswith("tap-forensics/tap_forensics_") for name in names)
