from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "quickstart.sh"
# What the script needs before it needs gcloud.
TOOLS = ("bash", "dirname", "env", "sed")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH without gcloud."""
    for name in TOOLS:
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    return str(tmp_path)


def quickstart(path: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our script)
        [str(SCRIPT), *options], env={"PATH": path}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "options", [(), ("--project", "demo-proj"), ("--uninstall", "--project", "demo-proj")]
)
def test_without_gcloud_it_says_so_with_the_remedy(path: str, options: tuple[str, ...]) -> None:
    done = quickstart(path, *options)
    assert done.returncode == 1
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert "gcloud was not found: install the Google Cloud CLI" in sentence


def test_its_help_needs_no_gcloud(path: str) -> None:
    done = quickstart(path, "--help")
    assert done.returncode == 0
    assert "--schedule CRON" in done.stdout
