"""The log: one JSON object per line on Cloud Run, readable lines in a terminal. Unprintable text is escaped.

Messages that operators search for keep the published function's wording.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any, Protocol

# Each run of a process has its own logger, but all share stdout.
_STDOUT_LOCK = threading.Lock()


class Headers(Protocol):
    """The headers of an HTTP request; names are case-insensitive."""

    def get(self, key: str, default: str, /) -> str: ...


# Cloud Logging truncates an entry over 256 KB: https://cloud.google.com/logging/quotas
_MAX_MESSAGE_CHARACTERS = 8000


def run_log(environ: Mapping[str, str], headers: Headers, tenant: str | None = None) -> logging.Logger:
    """A new logger for one run; `headers` are those of the event's request, for the trace. Each line names
    the tenant, if there is one.
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
    """At most `limit` characters; unprintable ones (controls, line ends, bidi marks) are escaped."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return escaped + ("…" if len(text) > limit else "")


def log_failure(log: logging.Logger, error: Exception) -> None:
    """Logs the error that ended a run. The field `error` is its class, for alerts: no text can imitate it."""
    log.error("%s", error, extra={"fields": {"error": type(error).__name__}})


class _Stdout(logging.Handler):
    """Writes to the current stdout: functions-framework replaces it to add execution_id."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        with _STDOUT_LOCK:
            print(line, file=sys.stdout, flush=True)  # noqa: T201 - this is the log


class _Structured(logging.Formatter):
    """https://cloud.google.com/logging/docs/structured-logging"""

    def __init__(self, common_fields: dict[str, Any]) -> None:
        super().__init__()
        self._common_fields = common_fields

    def format(self, record: logging.LogRecord) -> str:
        entry = {"severity": record.levelname, "message": _message(record)}
        return json.dumps({**entry, **self._common_fields, **_fields(record)}, default=str)


class ConsoleFormatter(logging.Formatter):
    """`HH:MM:SS LEVEL message`, then the run's figures that are not zero as `name=value`."""

    def __init__(self, tenant: str | None = None) -> None:
        super().__init__()
        self._tenant_tag = f"[{tenant}] " if tenant else ""

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%H:%M:%S")
        run = _fields(record).get("run", {})
        figures = " ".join(escape_unprintable(f"{k}={v}") for k, v in run.items() if v)
        message = f"{self._tenant_tag}{_message(record)}{': ' + figures if figures else ''}"
        return f"{time} {record.levelname:7} {message}"


def _message(record: logging.LogRecord) -> str:
    return escape_unprintable(record.getMessage(), _MAX_MESSAGE_CHARACTERS)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _labels(tenant: str | None) -> dict[str, dict[str, str]]:
    return {"logging.googleapis.com/labels": {"tenant": tenant}} if tenant else {}


def _trace(environ: Mapping[str, str], headers: Headers) -> dict[str, str]:
    """The trace ID of the W3C header or of Google's older one; nothing else of them is logged."""
    text = f"{headers.get('traceparent', '')} {headers.get('X-Cloud-Trace-Context', '')}"
    match = re.search(r"(?:^00-|\s)([0-9a-f]{32})[-/]", text)
    if not match:
        return {}
    project = environ.get("GOOGLE_CLOUD_PROJECT")
    # A bare ID is read as this project's: https://cloud.google.com/trace/docs/trace-log-integration
    name = f"projects/{project}/traces/{match[1]}" if project else match[1]
    return {"logging.googleapis.com/trace": name}
