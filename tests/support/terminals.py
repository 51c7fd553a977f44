"""A program on a terminal of its own, which can be closed under it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

# Takes the terminal that is its stdin for its own: whoever leads a terminal's session is told of its end.
_ON_IT = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    def __init__(self, words: list[str], env: Mapping[str, str]) -> None:
        self._mine, theirs = pty.openpty()
        self.shown = ""
        self._open = True
        self.process = subprocess.Popen(  # noqa: S603 (this Python, with words of ours)
            [sys.executable, "-c", _ON_IT, sys.executable, *words],
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, text: str) -> str:
        """All that was shown so far. Raises OSError if the program ends before the text."""
        while text not in self.shown:
            self.shown += os.read(self._mine, 65536).decode(errors="replace")
        return self.shown

    def close(self) -> None:
        if self._open:
            os.close(self._mine)
            self._open = False


@contextmanager
def terminal(words: list[str], env: Mapping[str, str]) -> Iterator[Terminal]:
    """This Python with `words`; killed if the test leaves it running."""
    opened = Terminal(words, env)
    try:
        yield opened
    finally:
        opened.close()
        with suppress(ProcessLookupError):
            opened.process.kill()
        opened.process.wait()


def children(pid: int) -> dict[int, str]:
    """The processes that this one started and that still run, with their command lines."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="],  # noqa: S607 - wherever the system has it
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return {int(row[0]): row[2] for row in rows if int(row[1]) == pid}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
