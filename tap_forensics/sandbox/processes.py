"""Servers as child processes: a free port, a readiness check without fixed sleeps, an end without orphans."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time

HOST = "127.0.0.1"
# Below the ephemeral ports of Linux and macOS, so the system assigns none of these before we use it.
_PORTS = range(10_000, 32_000)


def free_port() -> int:
    """Returns a loopback port that is not in use now."""
    # Not `random`: several processes may use the same seed.
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
    """Returns when the port accepts connections. Raises RuntimeError if the process exits or on timeout."""
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
    """Signals the group led by a process (started with `start_new_session`), if it still exists."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        # Already gone. macOS returns "not permitted" for a group that contains only zombies.
        return


def end_group(process: subprocess.Popen[bytes], grace_seconds: float = 5) -> None:
    """Sends SIGTERM to the whole group, and SIGKILL to what is left after the grace period."""
    signal_group(process, signal.SIGTERM)
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        signal_group(process, signal.SIGKILL)
        process.wait()
