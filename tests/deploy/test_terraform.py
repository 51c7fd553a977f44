"""The module under the real terraform: formatted, valid, and what facts.json says."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tap_forensics.config.settings import VARIABLES
from tap_forensics.stats import RunStats
from tests.support.tools import CHECKOUT, beside_the_checkout, command

MODULE = CHECKOUT / "deploy" / "terraform"
# Of an environment, what is for the framework and not for the collector.
FOR_THE_FRAMEWORK = {"LOG_EXECUTION_ID"}


@pytest.mark.timeout(600)
def test_the_module_passes_terraforms_own_checks_and_its_tests() -> None:
    command("terraform")
    check = beside_the_checkout("TAP_TERRAFORM_CHECK", "terraform/check")
    checked = subprocess.run(  # noqa: S603 (the check, on our module)
        [str(check), str(MODULE)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 failed" in checked.stdout


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


def test_the_environment_is_the_collectors_own() -> None:
    facts = json.loads((CHECKOUT / "tests" / "deploy" / "facts.json").read_text(encoding="utf-8"))
    assert set(facts["environment"]) - FOR_THE_FRAMEWORK <= {variable.name for variable in VARIABLES}
