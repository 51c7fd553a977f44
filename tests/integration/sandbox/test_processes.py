from __future__ import annotations

import subprocess
import sys

import pytest

from tap_forensics.sandbox.processes import end_group, free_port, is_free, wait_until_listening

# Ignores SIGTERM, as a request that does not end does, and has a child that does so too.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
os.write(1, b"ready\\n")  # at once, so that the two do not mingle
time.sleep(60)
"""


def started(code: str) -> subprocess.Popen[bytes]:
    # This Python, with a program of ours.
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )


def test_a_group_that_ignores_sigterm_is_killed_with_its_children() -> None:
    with started(STUBBORN) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n", b"ready\n"]
        end_group(process, grace_seconds=0.1)
        # The pipe ends only when the child, too, is gone.
        assert process.stdout.read() == b""
    assert process.returncode == -9


def test_waiting_for_a_server_that_ends_says_so_at_once() -> None:
    with started("raise SystemExit(3)") as process, pytest.raises(RuntimeError, match="ended with code 3"):
        wait_until_listening(process, free_port(), within_seconds=10)


def test_waiting_for_a_server_that_never_listens_ends(capfd: pytest.CaptureFixture[str]) -> None:
    with started("import time; time.sleep(60)") as process:
        with pytest.raises(RuntimeError, match=r"within 0.1 s"):
            wait_until_listening(process, free_port(), within_seconds=0.1)
        end_group(process)
    assert capfd.readouterr().err == ""


def test_a_free_port_is_free() -> None:
    assert is_free(free_port())
