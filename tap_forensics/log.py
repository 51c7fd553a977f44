"""One JSON object a line on Cloud Run, readable lines in a terminal; strange text made harmless.

The wording of the messages that operators search for is the published function's.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any, Protocol

# Runs of one process have a log each, and one stdout together.
_ONE_LINE_AT_A_TIME = threading.Lock()


class Headers(Protocol):
    """Of an HTTP request: names are looked up without regard to case."""

    def get(self, key: str, default: str, /) -> str: ...


# An entry over 256 KB is cut by Cloud Logging: https://cloud.google.com/logging/quotas
_LONGEST_MESSAGE = 8000


def run_log(environ: Mapping[str, str], headers: Headers, tenant: str | None = None) -> logging.Logger:
    """A logger of this run's own; `headers` are those of the event's request, for its trace. Each line names
    the tenant, where there is one.
    """
    log = logging.Logger("tap_forensics", logging.INFO)
    handler = _Stdout()
    if "K_SERVICE" in environ:
        handler.setFormatter(_Structured(_trace(environ, headers) | _labels(tenant)))
    else:
        handler.setFormatter(ConsoleFormatter(tenant))
    log.addHandler(handler)
    return log


def escape_unprintable(text: str, limit: int = 200) -> str:
    """At most `limit` characters; what does not print (controls, line ends, bidi marks) is escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return shown + ("…" if len(text) > limit else "")


class _Stdout(logging.Handler):
    """Writes to whatever stdout is now: functions-framework puts its own in place to add execution_id."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        with _ONE_LINE_AT_A_TIME:
            print(line, file=sys.stdout, flush=True)  # noqa: T201 - this is the log


class _Structured(logging.Formatter):
    """https://cloud.google.com/logging/docs/structured-logging"""

    def __init__(self, on_each_line: dict[str, Any]) -> None:
        super().__init__()
        self._on_each_line = on_each_line

    def format(self, record: logging.LogRecord) -> str:
        said = {"severity": record.levelname, "message": _message(record)}
        return json.dumps({**said, **self._on_each_line, **_fields(record)}, default=str)


class ConsoleFormatter(logging.Formatter):
    """`HH:MM:SS LEVEL message` and, where there are figures, those that are not zero as `name=value`."""

    def __init__(self, tenant: str | None = None) -> None:
        super().__init__()
        self._whose = f"[{tenant}] " if tenant else ""

    def format(self, record: logging.LogRecord) -> str:
        clock = self.formatTime(record, "%H:%M:%S")
        stats = " ".join(
            escape_unprintable(f"{k}={v}")
            for group in _fields(record).values()
            for k, v in group.items()
            if v
        )
        message = f"{self._whose}{_message(record)}{': ' + stats if stats else ''}"
        return f"{clock} {record.levelname:7} {message}"


def _message(record: logging.LogRecord) -> str:
    return escape_unprintable(record.getMessage(), _LONGEST_MESSAGE)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _labels(tenant: str | None) -> dict[str, dict[str, str]]:
    return {"logging.googleapis.com/labels": {"tenant": tenant}} if tenant else {}


def _trace(environ: Mapping[str, str], headers: Headers) -> dict[str, str]:
    """The request's trace id, from W3C's header or Google's older one; nothing else of them is passed on."""
    given = f"{headers.get('traceparent', '')} {headers.get('X-Cloud-Trace-Context', '')}"
    found = re.search(r"(?:^00-|\s)([0-9a-f]{32})[-/]", given)
    if not found:
        return {}
    project = environ.get("GOOGLE_CLOUD_PROJECT")
    # https://cloud.google.com/trace/docs/trace-log-integration: the bare id is taken for this project's.
    name = f"projects/{project}/traces/{found[1]}" if project else found[1]
    return {"logging.googleapis.com/trace": name}
