"""Servers as child processes: a free port, readiness without blind sleeps, an end that leaves no orphan."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time

HOST = "127.0.0.1"
# Below those that Linux and macOS hand out by themselves: nobody else gets one between the look and the use.
_PORTS = range(10_000, 32_000)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    # Not by `random`, which several processes may have seeded alike.
    while not is_free(port := secrets.choice(_PORTS)):
        pass
    return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def wait_until_listening(process: subprocess.Popen[bytes], port: int, within_seconds: float) -> None:
    """Returns once the port takes connections. Raises RuntimeError if the process ends, or time runs out."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode} before it listened")
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError(f"the server did not listen on port {port} within {within_seconds:g} s")


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals the group that a process leads (started with `start_new_session`), if any of it still lives."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        # Gone already; macOS says "not permitted" of a group in which only zombies are left.
        return


def end_group(process: subprocess.Popen[bytes], grace_seconds: float = 5) -> None:
    """SIGTERM to the whole group, SIGKILL to what is left of it after the grace."""
    signal_group(process, signal.SIGTERM)
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        signal_group(process, signal.SIGKILL)
        process.wait()
