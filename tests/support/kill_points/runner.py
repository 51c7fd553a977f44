"""One run of the collector in a process of its own, which can be killed, stopped and woken like any other.

The processes are forked from a server that has the imports done: a run costs milliseconds, not a second.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from enum import IntEnum
from multiprocessing.connection import wait
from pathlib import Path

from tap_forensics.clock import Clock
from tap_forensics.collect import RunOptions, collect
from tap_forensics.config.settings import load_settings
from tap_forensics.errors import LeaseHeld, RunFailed
from tap_forensics.log import run_log
from tap_forensics.storage.bucket import open_client

PATIENCE_SECONDS = 60

_processes = multiprocessing.get_context("forkserver")
# The first entry saves each child the import of the script that started the tests.
_processes.set_forkserver_preload(["__main__", __name__])
# A start looks after the exit codes of all children, and each can be read once only.
_one_at_a_time = threading.Lock()


class Ending(IntEnum):
    """How a run's process ended; any other code is a crash, or a signal."""

    COMPLETE = 10
    INCOMPLETE = 11
    BUSY = 12
    FAILED = 13
    KILLED = -signal.SIGKILL


class Run:
    """A run under way. Its log goes to a file that it shares with the other runs of the scene."""

    def __init__(self, env: Mapping[str, str], log_file: Path, batch_bytes: int, stalls_at: str = "") -> None:
        """Who logs a line with the words `stalls_at` waits for ever, as on a pipe that nobody reads."""
        self.log_file = log_file
        self._ended = False
        self._process = _processes.Process(target=_run, args=(dict(env), log_file, batch_bytes, stalls_at))
        with _one_at_a_time:
            self._process.start()

    def end(self) -> Ending:
        """Waits for the end. A crash is a ValueError: none of the endings."""
        if not wait([self._process.sentinel], PATIENCE_SECONDS):
            self.kill()
            raise AssertionError(f"the run never ended:\n{self.log_file.read_text()}")
        self._ended = True
        with _one_at_a_time:
            self._process.join()
            code = self._process.exitcode
        assert code is not None
        return Ending(code)

    def kill(self) -> None:
        """SIGKILL if it still runs; returns when it is dead. Another thread may wait in `end` meanwhile."""
        if self._ended:
            return
        # It may have ended by itself just now.
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        wait([self._process.sentinel])

    def sleep(self) -> None:
        """The process gets no CPU any more, as a Cloud Run instance after its request was given up."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid
        os.kill(self._process.pid, number)


def _run(env: dict[str, str], log_file: Path, batch_bytes: int, stalls_at: str) -> None:
    """In the child. The environment is the function's own and nothing else."""
    os.environ.clear()
    os.environ.update(env)
    sys.stdout = sys.stderr = log_file.open("a", buffering=1)
    log = run_log(env, {})
    if stalls_at:
        log.addFilter(lambda record: stalls_at not in record.getMessage() or _stalled())
    try:
        stats = collect(load_settings(env), open_client, Clock(), log, RunOptions(batch_bytes=batch_bytes))
    except LeaseHeld:
        sys.exit(Ending.BUSY)
    except RunFailed:
        sys.exit(Ending.FAILED)
    sys.exit(Ending[stats.outcome.upper()])


def _stalled() -> bool:
    return threading.Event().wait()
