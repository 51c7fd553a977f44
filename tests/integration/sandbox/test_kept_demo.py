"""`demo --keep` as its reader uses it: real processes, and the printed lines pasted into a shell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tap_forensics.config.settings import VARIABLES
from tap_forensics.sandbox.demo import EVENTS_PREFIX
from tap_forensics.sandbox.kept import CONFLICTING
from tap_forensics.sandbox.processes import is_free
from tests.support.terminals import children, is_gone, terminal

pytestmark = pytest.mark.slow

SANDBOX, COMMAND_LINE = ["-m", "tap_forensics.sandbox", "demo"], ["-m", "tap_forensics", "demo"]
LAST_LINE = "Another event for the function:"
# What the reader's shell has from elsewhere: each would lead the commands astray.
ASTRAY = {
    "GCS_PREFIX": "elsewhere",
    "TAP_PRINCIPAL_FILE": "/nowhere",
    "http_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}


@dataclass
class Kept:
    process: subprocess.Popen[str]
    text: str

    @property
    def exports(self) -> str:
        return "\n".join(re.findall(r"^(?:export|unset) .*$", self.text, re.MULTILINE))

    def command(self, name: str) -> str:
        found = re.search(rf"^  (\S.* {name}\b.*)$", self.text, re.MULTILINE)
        assert found, self.text
        return found[1]

    def ports(self) -> set[int]:
        return {int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", self.text)}


@contextmanager
def kept_demo(words: list[str], path: str = os.environ["PATH"]) -> Iterator[Kept]:
    env = {"PATH": path, "PYTHONUNBUFFERED": "1", **ASTRAY}
    with subprocess.Popen(  # noqa: S603 (this Python, with words of ours)
        [sys.executable, *words, "--keep"],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line)
                if LAST_LINE in line:
                    break
            yield Kept(process, "".join(lines))
        finally:
            # Its servers lead groups of their own and would outlive a kill.
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    with kept_demo(SANDBOX) as demo:
        yield demo


def pasted(demo: Kept, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A second terminal, somewhere else on this machine."""
    return subprocess.run(  # noqa: S603 (what the demo printed)
        ["/bin/sh", "-c", f"{demo.exports}\n{command}"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **ASTRAY},
        capture_output=True,
        text=True,
        check=False,
    )


def test_check_works_with_the_printed_lines(kept: Kept, tmp_path: Path) -> None:
    done = pasted(kept, kept.command("check"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert EVENTS_PREFIX in done.stdout


def test_status_works_with_the_printed_lines(kept: Kept, tmp_path: Path) -> None:
    done = pasted(kept, kept.command("status"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"tap-forensics/tap_forensics_\d{8}_\d{6}\.ndjson", done.stdout)
    assert re.search(r"tap-siem/tap_siem_events_\d{8}_\d{6}\.ndjson", done.stdout)
    assert re.search(r"tap-summaries/tap_threat_summaries_\d{8}_\d{6}\.ndjson", done.stdout)


def test_audit_works_with_the_printed_lines(kept: Kept, tmp_path: Path) -> None:
    done = pasted(kept, kept.command("audit"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Complete" in done.stdout


def test_report_works_with_the_printed_lines(kept: Kept, tmp_path: Path) -> None:
    done = pasted(kept, kept.command("report"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "41 reports" in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_every_other_variable_of_the_function_is_unset() -> None:
    names = {variable.name for variable in VARIABLES}
    exported = {
        "EVENTS_PREFIX",
        "GCS_BUCKET",
        "LOOKBACK_HOURS",
        "SUMMARIES_PREFIX",
        "TAP_API_BASE",
        "TAP_PRINCIPAL",
        "TAP_SECRET",
    }
    assert names - exported <= set(CONFLICTING)
    assert not exported & set(CONFLICTING)


def test_the_command_is_named_as_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "tap-forensics").touch(0o755)
    with kept_demo(SANDBOX, f"{tmp_path}:{os.environ['PATH']}") as demo:
        assert demo.command("check") == "tap-forensics check"
        assert "export PYTHONPATH" not in demo.text


@pytest.mark.parametrize("words", [SANDBOX, COMMAND_LINE])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_that_it_started(words: list[str], number: signal.Signals) -> None:
    with kept_demo(words) as demo:
        started = children(demo.process.pid)
        demo.process.send_signal(number)
        rest, _ = demo.process.communicate(timeout=20)
    assert demo.process.returncode == 130
    assert "Traceback" not in rest
    assert len(started) == 2
    assert all(map(is_gone, started))
    assert len(demo.ports()) == 3
    assert all(map(is_free, demo.ports()))


@pytest.mark.parametrize("words", [SANDBOX, COMMAND_LINE])
def test_a_closed_terminal_ends_all_that_it_started(words: list[str]) -> None:
    with terminal([*words, "--keep"], {"PATH": os.environ["PATH"]}) as opened:
        text = opened.read_until(LAST_LINE)
        started = children(opened.process.pid)
        opened.close()
        opened.process.wait(20)
    assert len(started) == 2
    assert all(map(is_gone, started))
    ports = {int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", text)}
    assert all(map(is_free, ports))


def test_without_a_checkout_the_command_says_what_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 (this Python, with words of ours)
        [sys.executable, *COMMAND_LINE, "--source", str(tmp_path / "main.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "run this from a checkout" in done.stderr
