"""The table of exit codes in `--help` holds for every command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tap_forensics import __version__
from tests.integration.cli.conftest import Site

WITH_SETTINGS = [
    ("run",),
    ("check",),
    ("status",),
    ("backfill", "--resume"),
    ("audit", "--from", "2026-11-20"),
    ("state", "show"),
    ("state", "repair", "--yes"),
    ("state", "reset", "--yes"),
]


@pytest.mark.parametrize("json", [(), ("--json",)])
@pytest.mark.parametrize("words", WITH_SETTINGS)
def test_wrong_settings_end_every_command_with_2(
    site: Site, words: tuple[str, ...], json: tuple[str, ...]
) -> None:
    result = site.call(*words, *json, MAX_THREATS="many")
    assert result.exit_code == 2
    assert "MAX_THREATS" in result.output
    assert site.bucket.names() == []


@pytest.mark.parametrize("words", [("udm",), ("report", "-o", "page.html")])
def test_a_source_that_does_not_exist_ends_with_2_and_an_empty_one_with_1(
    site: Site, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert site.call(*words, "nowhere").exit_code == 2
    assert site.call(*words, str(tmp_path)).exit_code == 1
    assert site.call(*words).exit_code == 2


@pytest.mark.parametrize("words", [("udm", "-"), ("report", "-", "-o", "page.html")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_it_reads_a_command_ends_with_130(
    words: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    line = b'{"scope":"THREAT","id":"a","_threatId":"a","forensics":[{"type":"url","what":{}}]}\n'
    reading, writing = os.pipe()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}  # noqa: PTH109 - the checkout
    with subprocess.Popen(  # noqa: S603 (this Python, with words of ours)
        [sys.executable, "-m", "tap_forensics", *words],
        cwd=tmp_path,
        env=env,
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(reading)
        wait_until_it_reads(writing, line)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        os.close(writing)
    assert process.returncode == 130
    assert errors.decode() == "Interrupted.\n"


def wait_until_it_reads(pipe: int, line: bytes) -> None:
    """Fills the pipe until a write has to wait: the one after it returns only once somebody reads."""
    os.set_blocking(pipe, False)
    try:
        while True:
            os.write(pipe, line * 100)
    except BlockingIOError:
        os.set_blocking(pipe, True)
    os.write(pipe, line * 100)


def test_the_version_is_the_packages(site: Site) -> None:
    result = site.call("--version")
    assert result.exit_code == 0
    assert result.stdout == f"tap-forensics, version {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_variable_prints_the_completion_of_a_shell(shell: str) -> None:
    env = {"PATH": os.environ["PATH"], "_TAP_FORENSICS_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [sys.executable, "-m", "tap_forensics"], env=env, capture_output=True, text=True, check=False
    )
    assert "tap-forensics" in done.stdout
    assert "_TAP_FORENSICS_COMPLETE" in done.stdout
