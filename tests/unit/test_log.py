from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tap_forensics.log import escape_unprintable, run_log

TRACE = "0af7651916cd43dd8448eb211c80319c"
OTHER = "105445aa7843bc8bf206b12000100000"
W3C = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
GOOGLE = {"X-Cloud-Trace-Context": f"{OTHER}/1;o=1"}
ON_CLOUD_RUN = {"K_SERVICE": "tap-forensics-collector"}


def logged(
    message: str,
    *given: object,
    environ: Mapping[str, str] = ON_CLOUD_RUN,
    headers: Mapping[str, str] | None = None,
    tenant: str | None = None,
    **extra: Any,
) -> str:
    """What one warning writes."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        run_log(environ, dict(headers or {}), tenant).warning(message, *given, extra=extra or None)
    return written.getvalue()


def entry(message: str, *given: object, **how: Any) -> dict[str, Any]:
    line = logged(message, *given, **how)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_structured_line_holds_severity_and_message_and_nothing_unasked() -> None:
    assert entry("Found %d unique threat IDs", 7) == {
        "severity": "WARNING",
        "message": "Found 7 unique threat IDs",
    }


def test_figures_are_an_object_of_their_own() -> None:
    assert entry("Run complete", fields={"run": {"windows": 3}})["run"] == {"windows": 3}


def test_a_tenant_is_a_label_of_each_line_and_stands_before_it_in_a_terminal() -> None:
    assert entry("Found", tenant="acme")["logging.googleapis.com/labels"] == {"tenant": "acme"}
    assert logged("Found", environ={}, tenant="acme").endswith(" WARNING [acme] Found\n")


def test_a_message_of_several_lines_is_one_line() -> None:
    assert entry("one\ntwo\r\u2028three")["message"] == "one\\ntwo\\r\\u2028three"


def test_a_message_is_cut_before_cloud_logging_would_cut_it() -> None:
    assert len(logged("\U0001f600" * 300_000)) < 250_000


def test_debug_is_not_logged() -> None:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        run_log({}, {}).debug("hidden")
    assert written.getvalue() == ""


def test_each_severity_has_the_name_that_cloud_logging_knows() -> None:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        log = run_log(ON_CLOUD_RUN, {})
        log.info("i")
        log.warning("w")
        log.error("e")
    severities = [json.loads(line)["severity"] for line in written.getvalue().splitlines()]
    assert severities == ["INFO", "WARNING", "ERROR"]


def test_a_line_goes_to_what_stdout_is_when_it_is_logged() -> None:
    log = run_log(ON_CLOUD_RUN, {})
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        log.info("late")
    assert "late" in written.getvalue()


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (W3C, TRACE),
        (GOOGLE, OTHER),
        (W3C | GOOGLE, TRACE),
        ({"traceparent": "garbage"} | GOOGLE, OTHER),
    ],
)
def test_the_trace_of_the_request_is_named(headers: Mapping[str, str], found: str) -> None:
    assert entry("x", headers=headers)["logging.googleapis.com/trace"] == found


def test_with_a_project_the_trace_has_its_full_name() -> None:
    environ = ON_CLOUD_RUN | {"GOOGLE_CLOUD_PROJECT": "my-project"}
    line = entry("x", environ=environ, headers=W3C)
    assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{TRACE}"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00-",
        f"00-{TRACE}",
        f"00-{TRACE[:-1]}-b7ad6b7169203331-01",
        f"00-{TRACE.upper()}-x",
        "a" * 10_000,
        "\n",
        "é",
        f"x{TRACE}/1",
    ],
)
@pytest.mark.parametrize("name", ["traceparent", "X-Cloud-Trace-Context"])
def test_what_is_no_trace_is_left_out(name: str, value: str) -> None:
    assert set(entry("x", headers={name: value})) == {"severity", "message"}


def test_in_a_terminal_a_line_is_readable() -> None:
    line = logged("Run %s", "complete", environ={}, fields={"run": {"windows": 3, "reports": 7}})
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING Run complete: windows=3 reports=7\n", line)


def test_in_a_terminal_a_message_is_one_line_without_control_characters() -> None:
    line = logged("a\nb\x1b[31mc\u202ed", environ={})
    assert line.endswith("a\\nb\\x1b[31mc\\u202ed\n")


def test_in_a_terminal_figures_are_as_harmless_as_messages() -> None:
    line = logged("Run failed", environ={}, fields={"run": {"reason": "a\nb\x1b[31m"}})
    assert line.endswith("reason=a\\nb\\x1b[31m\n")


def test_harmless_text_stays_as_it_is() -> None:
    assert escape_unprintable("TAP answered 400: Größe, 大きさ, 😀") == "TAP answered 400: Größe, 大きさ, 😀"


def test_text_is_cut_at_its_limit_and_says_so() -> None:
    assert (escape_unprintable("abc", 3), escape_unprintable("abcd", 3)) == ("abc", "abc…")
