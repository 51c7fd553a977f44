from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tap_forensics.config.settings import VARIABLES

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


@pytest.mark.parametrize("variable", [variable.name for variable in VARIABLES])
def test_every_declared_variable_is_known_to_it(path: str, variable: str) -> None:
    """Some it sets itself; of the others it goes on, to the missing gcloud."""
    done = quickstart(path, "--project", "demo-proj", "--set", f"{variable}=tap")
    assert "has no variable" not in done.stderr
    ours = re.match("GCS_BUCKET|STATE_KEY|TENANTS_DIR|TAP_(PRINCIPAL|SECRET)|HTTPS_PROXY|.*_FILE", variable)
    assert done.returncode == (2 if ours else 1)


@pytest.mark.parametrize(
    "variable", ["MAX_THREAT", "max_threats", "PATH", "LOG_LEVEL", "Variable", "LOOKBACK_HOURS MAX_THREATS"]
)
def test_no_other_variable_is_known_to_it(path: str, variable: str) -> None:
    done = quickstart(path, "--set", f"{variable}=5")
    assert done.returncode == 2
    assert f"the collector has no variable {variable}: see docs/reference/settings.md" in done.stderr


def test_it_is_written_for_the_bash_of_macos() -> None:
    """Version 3.2: none of what came later, and no empty array without the + that it needs."""
    script = SCRIPT.read_text(encoding="utf-8")
    later = r"mapfile|readarray|(declare|local) -[An]|\$\{\w+(,,|\^\^|@Q)|\[-1\]|&>>|\|&|coproc"
    later += r"|sha256sum|readlink -f|sed -i"
    assert re.findall(later, script) == []
    assert re.findall(r'(?<!\[@\]\+)"\$\{settings\[@\]\}"', script) == []


def test_its_help_names_the_roles_of_who_deploys_as_the_guide_does(path: str) -> None:
    told = set(
        re.findall(
            r"\b[a-z]+\.[a-z]+[A-Z]?[A-Za-z]*\b", quickstart(path, "--help").stdout.partition("Roles")[2]
        )
    )
    guide = (SCRIPT.parent / "README.md").read_text(encoding="utf-8")
    table = guide.partition("### Roles of the person who deploys")[2].partition("\n## ")[0]
    assert told
    assert {f"roles/{role}" for role in told} == set(re.findall(r"^\| `(roles/[\w.]+)`", table, re.M))


def test_its_help_needs_no_gcloud(path: str) -> None:
    done = quickstart(path, "--help")
    assert done.returncode == 0
    assert "--schedule CRON" in done.stdout
