from __future__ import annotations

import contextlib
import io
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.log import escape_unprintable, run_log

anything = st.text(alphabet=st.characters(exclude_categories=[]))
BIDI = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c"
stats = st.dictionaries(
    st.text(alphabet="abc_", min_size=1),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | anything,
)


def logged(environ: dict[str, str], headers: dict[str, str], message: str, fields: dict[str, object]) -> str:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        run_log(environ, headers).info("%s", message, extra={"fields": {"run": fields}})
    return written.getvalue()


@given(anything | st.text(alphabet=BIDI), st.integers(0, 50))
def test_no_control_no_bidi_mark_and_no_line_end_survives(text: str, limit: int) -> None:
    shown = escape_unprintable(text, limit)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in shown)
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & set(BIDI)


@given(anything, st.integers(0, 50))
def test_harmless_text_is_bounded(text: str, limit: int) -> None:
    assert len(escape_unprintable(text, limit)) <= 10 * limit + 1


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=50))
def test_what_prints_is_not_touched(text: str) -> None:
    assert escape_unprintable(text, 50) == text


@given(anything, stats)
def test_whatever_is_logged_on_cloud_run_is_one_json_object_on_one_line(
    message: str, fields: dict[str, object]
) -> None:
    line = logged({"K_SERVICE": "x"}, {}, message, fields)
    assert line.isascii()
    assert line.count("\n") == 1
    entry = json.loads(line)
    assert (entry["severity"], entry["run"]) == ("INFO", fields)
    assert entry["message"].isprintable()


@given(anything, stats)
def test_whatever_is_logged_in_a_terminal_is_one_line_that_prints(
    message: str, fields: dict[str, object]
) -> None:
    line = logged({}, {}, message, fields)
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize("name", ["traceparent", "X-Cloud-Trace-Context"])
@given(value=st.text() | st.from_regex(r"(00-)?[0-9a-f]{30,34}[-/][0-9a-f]{16}[-;]01"))
def test_whatever_the_headers_say_a_trace_is_an_id_or_nothing(name: str, value: str) -> None:
    entry = json.loads(logged({"K_SERVICE": "x", "GOOGLE_CLOUD_PROJECT": "p"}, {name: value}, "m", {}))
    trace = entry.pop("logging.googleapis.com/trace", "projects/p/traces/" + "0" * 32)
    assert re.fullmatch("projects/p/traces/[0-9a-f]{32}", trace)
    assert set(entry) == {"severity", "message", "run"}
