"""The trigger: the CloudEvent that Eventarc posts for a Pub/Sub message, and the function that gets it."""

from __future__ import annotations

import base64
import json
import shlex
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import urllib3

from tap_forensics.sandbox.processes import HOST, end_group, free_port, signal_group, wait_until_listening

TOPIC = "projects/demo/topics/tap-forensics-collector-trigger"
SUBSCRIPTION = "projects/demo/subscriptions/eventarc-demo-sub"


def event_headers(event_id: str) -> dict[str, str]:
    """The headers of a binary-mode CloudEvent as Eventarc sends it for Pub/Sub (Google's documentation)."""
    return {
        "ce-id": event_id,
        "ce-source": f"//pubsub.googleapis.com/{TOPIC}",
        "ce-specversion": "1.0",
        "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
        "content-type": "application/json",
    }


def event_body(payload: bytes, event_id: str, published: datetime) -> bytes:
    """The event's data: the Pub/Sub message with its payload in Base64."""
    message = {
        "data": base64.b64encode(payload).decode(),
        "messageId": event_id,
        "publishTime": published.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "attributes": {},
    }
    return json.dumps({"message": message, "subscription": SUBSCRIPTION}).encode()


def post_event(
    url: str, payload: bytes = b"{}", *, event_id: str | None = None, timeout_seconds: float = 600
) -> tuple[int, str]:
    """Posts one event and returns (status, body). Use the same `event_id` again for a redelivery."""
    name = event_id or uuid.uuid4().hex
    body = event_body(payload, name, datetime.now(UTC))
    with urllib3.PoolManager() as pool:
        answer = pool.request(
            "POST", url, body=body, headers=event_headers(name), retries=False, timeout=timeout_seconds
        )
        return answer.status, answer.data.decode(errors="replace")


def curl_line(url: str) -> str:
    """A shell command that posts an event."""
    words = ["curl", "-i", url]
    for name, value in event_headers("1").items():
        words += ["-H", f"{name}: {value}"]
    data = {
        "message": {"data": base64.b64encode(b"{}").decode(), "messageId": "1"},
        "subscription": SUBSCRIPTION,
    }
    return shlex.join([*words, "-d", json.dumps(data)])


class FunctionServer:
    """A function under functions-framework in its own process group, as a context manager.

    Its environment is `env`, and what `env` leaves out of PATH, PYTHONUNBUFFERED and the signature type of a
    function with an event trigger. `log` holds the lines of stdout and stderr together; `echo` is called with
    each new line. Raises RuntimeError with the log if it does not start.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        source: str | Path = "main.py",
        port: int | None = None,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self.source = Path(source).resolve()
        self.port = port or free_port()
        folder = str(Path(sys.executable).parent)
        path = f"{folder}:/usr/local/bin:/usr/bin:/bin"
        ours = {"PATH": path, "PYTHONUNBUFFERED": "1", "FUNCTION_SIGNATURE_TYPE": "cloudevent"}
        self.env = ours | dict(env)
        self.log: list[str] = []
        self._echo = echo
        self._grew = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the group leader."""
        return self._process.pid

    def __enter__(self) -> FunctionServer:
        command = [sys.executable, "-m", "functions_framework", "--target", "main"]
        command += ["--source", str(self.source), "--host", HOST, "--port", str(self.port)]
        self._process = subprocess.Popen(  # noqa: S603 (this Python, with our own arguments)
            command,
            env=self.env,
            cwd=self.source.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="function log", daemon=True)
        self._reader.start()
        try:
            wait_until_listening(self._process, self.port, within_seconds=30)
        except RuntimeError as error:
            self.stop()
            raise RuntimeError("\n".join([str(error), *self.log])) from error
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Sends SIGTERM to the group, and SIGKILL after five seconds. Then the log is complete."""
        end_group(self._process)
        self._reader.join(5)

    def kill(self) -> None:
        """Sends SIGKILL to the whole group at once, like a crash or an out-of-memory kill."""
        signal_group(self._process, signal.SIGKILL)
        self._process.wait()
        # The log ends when the last process that can write to it has exited.
        self._reader.join(5)

    def wait(self) -> None:
        """Returns when the function's server exits by itself."""
        # Short waits in a loop: a signal just before a wait without a timeout would not interrupt it.
        while self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)

    def wait_for_log(self, text: str, timeout_seconds: float = 30) -> bool:
        """Returns True if a line with this text is in the log or appears before the timeout."""
        with self._grew:
            return self._grew.wait_for(lambda: any(text in line for line in self.log), timeout_seconds)

    def _read(self) -> None:
        assert self._process.stdout  # noqa: S101 (stdout is a pipe; this informs the type checker)
        with self._process.stdout as stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip("\n")
                with self._grew:
                    self.log.append(line)
                    self._grew.notify_all()
                if self._echo:
                    self._echo(line)
