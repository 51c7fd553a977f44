"""What holds for every command."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path

import click
import pytest

from tap_forensics.cli.main import COMMANDS, tap_forensics
from tap_forensics.clock import iso
from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site, live_lease
from tests.support.fleet import mount_one

SECRET = "open/sesame+0192837465"  # noqa: S105 (of no one)
HOUR = timedelta(hours=1)
WAYS = [
    ("run",),
    ("check",),
    ("status",),
    ("backfill", "--resume"),
    ("audit", "--from", iso(utc_now() - 4 * HOUR), "--repair"),
    ("state", "show"),
    ("state", "repair", "--yes"),
    ("state", "reset", "--yes"),
]


def gap() -> dict[str, datetime]:
    now = utc_now()
    return {"start": now - 5 * HOUR, "end": now - 4 * HOUR, "since": now}


def commands(group: click.Group, *names: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        inner = isinstance(command, click.Group)
        found += commands(command, *names, name) if inner else [(*names, name)]  # type: ignore[arg-type]  # inner says so
    return found


def test_each_way_below_is_a_command() -> None:
    named = {tuple(takewhile(lambda word: not word.startswith("--"), way)) for way in WAYS}
    assert named <= set(commands(tap_forensics))
    assert {way[0] for way in named} <= set(COMMANDS)


@pytest.mark.parametrize("words", commands(tap_forensics))
def test_each_help_has_an_example_and_the_shape_of_its_json(site: Site, words: tuple[str, ...]) -> None:
    result = site.call(*words, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "tap-forensics " + words[0] in result.stdout
    # The demo is only for people.
    assert "--json" in result.stdout.split("Example")[1] or words == ("demo",)


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_ever_shown(site: Site, way: tuple[str, ...]) -> None:
    site.put_state(last_event_time=utc_now() - HOUR, gaps=[gap()])
    for env in ({"TAP_SECRET": SECRET}, {"TAP_SECRET": SECRET, "MAX_THREATS": SECRET[:3]}):
        for more in ((), ("--json",)):
            result = site.call(*way, *more, **env)
            assert SECRET not in result.output
            assert "Traceback" not in result.output


@pytest.mark.parametrize("way", WAYS)
def test_no_command_writes_beside_a_live_lease(site: Site, way: tuple[str, ...]) -> None:
    site.put_state(lease=live_lease(), gaps=[gap()])
    before = site.bucket.objects()
    more = ("--wait", "0") if way[0] in ("audit", "backfill") else ()
    # Without a cursor there is nothing to audit.
    assert site.call(*way, *more).exit_code in (0, 4, *((2,) if way[0] == "audit" else ()))
    assert site.bucket.objects() == before


def test_a_tenant_has_its_own_credentials_folder_and_state(site: Site, tmp_path: Path) -> None:
    site.env["TENANTS_DIR"] = str(tmp_path)
    (tmp_path / "acme").mkdir()
    mount_one(tmp_path, "acme", site.env.pop("TAP_PRINCIPAL"), site.env.pop("TAP_SECRET"))
    result = site.call_json("run", "--tenant", "acme")
    assert (result["outcome"], result["tenant"]) == ("complete", "acme")
    assert site.call("check", "--tenant", "acme").exit_code == 0
    own = "state/tap-forensics/acme/state.json"
    assert own in site.call("status", "--tenant", "acme").stdout
    assert site.call("state", "show", "--tenant", "acme", TENANTS_DIR="").exit_code == 0
    folders = {name.rpartition("/")[0] for name in site.bucket.names()}
    assert folders == {"state/tap-forensics/acme", "tap-forensics/acme"}


@pytest.mark.parametrize(("name", "says"), [("../acme", "refused"), ("globex", "unknown"), ("", "refused")])
def test_a_tenant_that_is_none_is_refused_by_name(site: Site, tmp_path: Path, name: str, says: str) -> None:
    result = site.call("run", "--tenant", name, TENANTS_DIR=str(tmp_path))
    assert result.exit_code == 2
    assert f"tenant '{name}' is {says}" in result.stderr


def test_the_groups_help_has_the_exit_codes_and_imports_no_command() -> None:
    code = (
        "import sys; from tap_forensics.__main__ import main; sys.argv[1:] = ['--help']\n"
        "try: main()\n"
        "except SystemExit: print(*(name for name in sys.modules if name.startswith('tap_forensics.cli.')))"
    )
    completed = subprocess.run(  # noqa: S603 (this Python, our words)
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "130  interrupted" in completed.stdout
    assert "_TAP_FORENSICS_COMPLETE=bash_source tap-forensics" in completed.stdout
    assert completed.stdout.splitlines()[-1] == "tap_forensics.cli.main"


def test_a_word_that_is_no_command_is_a_usage_error(site: Site) -> None:
    assert site.call("collect").exit_code == 2
    assert site.call("run", "--fast").exit_code == 2
