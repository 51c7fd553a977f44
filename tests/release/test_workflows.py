"""The GitHub workflows: zizmor finds nothing, and can find something. actionlint is in `make scan`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tools import CHECKOUT

GITHUB = CHECKOUT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())


def findings(folder: Path) -> str:
    """What its strictest persona finds, without asking GitHub; empty: nothing."""
    zizmor = Path(sys.executable).with_name("zizmor")
    options = ("--offline", "--persona", "auditor", "--format", "plain", "--color", "never", "--quiet")
    completed = subprocess.run((zizmor, *options, folder), capture_output=True, text=True, check=False)  # noqa: S603
    assert (completed.returncode == 0) == completed.stdout.startswith("No findings"), completed.stderr
    return "" if completed.returncode == 0 else completed.stdout


def test_nothing_is_found() -> None:
    assert findings(GITHUB) == ""


@pytest.mark.parametrize(
    ("name", "good", "bad", "rule"),
    [
        (
            "ci.yml",
            "actions/checkout@[0-9a-f]{40}",
            "actions/checkout@v7",
            "unpinned-uses",
        ),
        ("ci.yml", "persist-credentials: false", "persist-credentials: true", "artipacked"),
        ("audit.yml", "permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("audit.yml", "workflow_dispatch:", "pull_request_target:", "dangerous-triggers"),
        ("release.yml", '--title "[$]TAG"', '--title "${{ github.ref_name }}"', "template-injection"),
    ],
)
def test_a_weakness_is_found(tmp_path: Path, name: str, good: str, bad: str, rule: str) -> None:
    shutil.copytree(GITHUB, tmp_path / ".github")
    workflow = tmp_path / ".github" / "workflows" / name
    text = workflow.read_text(encoding="utf-8")
    changed, times = re.subn(good, lambda _: bad, text)
    assert times
    workflow.write_text(changed, encoding="utf-8")
    assert f"[{rule}]" in findings(tmp_path / ".github")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_beside_the_commit_of_an_action_stands_its_version(workflow: Path) -> None:
    used = re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8"))
    assert used
    for action in used:
        pinned = re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
        assert pinned or action.startswith("./"), action


def test_an_action_is_used_in_one_version() -> None:
    texts = [workflow.read_text(encoding="utf-8") for workflow in WORKFLOWS]
    used = {line for text in texts for line in re.findall(r"uses: (\w.*)", text)}
    assert sorted(line.partition("@")[0] for line in used) == sorted(
        {line.partition("@")[0] for line in used}
    )


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_make_targets_exist(workflow: Path) -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    for line in re.findall(r"run: make (.*)", workflow.read_text(encoding="utf-8")):
        for target in (word for word in line.split() if "=" not in word):
            assert re.search(rf"^{target}:", makefile, re.M), target
