"""The module under the real terraform: formatted, valid, and what facts.json says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tap_forensics.config.settings import VARIABLES
from tap_forensics.errors import AuthenticationFailed, InvalidCredentials
from tap_forensics.stats import RunStats
from tests.support.tools import CHECKOUT, command, tracked_files

MODULE = CHECKOUT / "deploy" / "terraform"
# Of an environment, what is for the framework and not for the collector.
FOR_THE_FRAMEWORK = {"LOG_EXECUTION_ID"}


# How `terraform init` says that it found no provider; any other failure is the module's.
NO_PROVIDER = ("Failed to query available provider packages", "Failed to install provider")


def terraform(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
    return subprocess.run(  # noqa: S603 (the real one, on a copy of our module)
        [command("terraform"), *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def module_copy(tmp_path: Path) -> Path:
    """The module in a copy of the checkout, whose source it packs."""
    for name in tracked_files():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    return tmp_path / MODULE.relative_to(CHECKOUT)


def test_the_module_is_formatted(module_copy: Path) -> None:
    checked = terraform(module_copy, "fmt", "-check", "-recursive", "-diff")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.timeout(600)
def test_the_module_is_valid_and_passes_its_own_tests(module_copy: Path) -> None:
    """With the provider from wherever Terraform's own configuration says (TF_CLI_CONFIG_FILE)."""
    begun = terraform(module_copy, "init", "-backend=false", "-input=false", "-no-color")
    if begun.returncode and any(words in begun.stderr for words in NO_PROVIDER):
        pytest.skip("terraform finds no google provider; TF_CLI_CONFIG_FILE can name a mirror that has it")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    for step in ("validate", "test"):
        checked = terraform(module_copy, step, "-no-color")
        assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 failed" in checked.stdout


USED_FROM_GIT = """
module "tap_forensics" {
  source = "git::file://%s//deploy/terraform?ref=v9.9.9"

  project_id = "my-project"
  region     = "us-central1"
  bucket     = "my-bucket"
}
"""


def test_a_tag_s_subdirectory_is_a_module_that_packs_that_tag_s_source(
    module_copy: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`terraform get` fetches modules only, so this needs no provider."""
    checkout, root = module_copy.parents[1], tmp_path_factory.mktemp("root")
    as_somebody = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")
    for words in (("init",), ("add", "--all"), ("commit", "-m", "A release"), ("tag", "v9.9.9")):
        subprocess.run([command("git"), *as_somebody, *words], cwd=checkout, check=True, capture_output=True)  # noqa: S603
    packed_there = pack(checkout, root / "there.zip")
    (checkout / "main.py").write_text("raise SystemExit  # after the tag\n", encoding="utf-8")
    (root / "main.tf").write_text(USED_FROM_GIT % checkout, encoding="utf-8")
    fetched = terraform(root, "get", "-no-color")
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    (module,) = root.glob(".terraform/modules/tap_forensics/deploy/terraform")
    assert (module.parent / "RUNBOOK.md").is_file()
    assert pack(module.parents[1], root / "here.zip") == packed_there


def pack(checkout: Path, archive: Path) -> bytes:
    words = [sys.executable, str(checkout / "deploy" / "archive.py"), str(archive)]
    subprocess.run(words, check=True)  # noqa: S603 (our own script)
    return archive.read_bytes()


def test_each_example_is_planned_and_alone_says_which_provider() -> None:
    planned = (MODULE / "tests" / "examples.tftest.hcl").read_text(encoding="utf-8")
    examples = [folder for folder in (MODULE / "examples").iterdir() if folder.is_dir()]
    assert sorted(re.findall(r'source = "\./examples/(.+)"', planned)) == sorted(e.name for e in examples)
    assert all('provider "google" {' in (e / "main.tf").read_text(encoding="utf-8") for e in examples)
    assert not [
        f for f in MODULE.glob("*.tf") if re.search(r"^provider ", f.read_text(encoding="utf-8"), re.M)
    ]


def test_each_alert_has_its_paragraph_in_the_runbook() -> None:
    monitoring = (MODULE / "monitoring.tf").read_text(encoding="utf-8")
    runbook = (CHECKOUT / "deploy" / "RUNBOOK.md").read_text(encoding="utf-8")
    paragraphs = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", runbook, re.M)}
    alerts = set(re.findall(r"^    ([a-z-]+) = \{\n      title", monitoring, re.M))
    assert len(alerts) == 5
    assert alerts == paragraphs


def test_metrics_and_alerts_read_figures_that_a_run_logs() -> None:
    monitoring = (MODULE / "monitoring.tf").read_text(encoding="utf-8")
    listed = re.search(r"state_figures = \{(.+?)\}.+?run_figures = \{(.+?)\}", monitoring, re.S)
    assert listed
    named = set(re.findall(r"^    (\w+) +=", "".join(listed.groups()), re.M))
    named |= set(re.findall(r"jsonPayload\.run\.(\w+)", monitoring))
    assert named
    assert named <= set(RunStats().as_fields())


def test_the_alert_on_credentials_reads_the_kind_of_error_that_the_log_has() -> None:
    monitoring = (MODULE / "monitoring.tf").read_text(encoding="utf-8")
    (kinds,) = re.findall(r"jsonPayload\.error=\((.+?)\)", monitoring)
    named = re.findall(r"\w+", kinds.replace("OR", ""))
    assert named == [AuthenticationFailed.__name__, InvalidCredentials.__name__]


def test_the_environment_is_the_collectors_own() -> None:
    facts = json.loads((CHECKOUT / "tests" / "deploy" / "facts.json").read_text(encoding="utf-8"))
    assert set(facts["environment"]) - FOR_THE_FRAMEWORK <= {variable.name for variable in VARIABLES}
