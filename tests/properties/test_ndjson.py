from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_forensics.records.ndjson import (
    LONGEST_LINE_BYTES,
    Fields,
    Provenance,
    decode_object,
    report_lines,
    sanitize_utf8,
)


def known(report: bytes) -> Fields:
    fields = decode_object(msgspec.Raw(report))
    if fields is None:
        raise msgspec.DecodeError("no object")
    return fields


OURS = ("_threatId", "_campaignId", "generated", "_part", "_parts")
SHAPES = st.sampled_from(["report", "response"])
LONE = re.compile("[\ud800-\udfff]")

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
names = st.sampled_from([*OURS, "scope", "id", "type", "display", "what"]) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
evidence = st.dictionaries(names, values, max_size=5)
reports = st.builds(
    lambda fields, items: fields | items,
    st.dictionaries(names, values, max_size=6),
    st.fixed_dictionaries({}, optional={"forensics": st.lists(evidence, max_size=8)}),
)
provenances = st.builds(
    Provenance,
    st.text(min_size=1, max_size=256),
    st.none() | st.text(max_size=256),
    st.none() | st.just(msgspec.Raw(b'"2026-03-04T10:00:00.000Z"')),
)

# JSON as text, in spellings that a library would not choose; compact.
numbers = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    st.integers(min_value=0),
    st.sampled_from(["", ".0", ".50", ".123456789012345678901234567890"]),
    st.sampled_from(["", "e5", "E+05", "e-7", "E999"]),
)
pieces = st.sampled_from(
    [r"\n", r"\/", "/", r"\u0000", r"\u00E9", "é", r"\ud83d\ude00", "😀", r"\\", r"\"", "\u2028", "\x7f"]
)
spelled_texts = st.lists(pieces | st.characters(min_codepoint=35, max_codepoint=91), max_size=8).map(
    lambda parts: f'"{"".join(parts)}"'
)
spelled = st.recursive(
    numbers | spelled_texts | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(spelled_texts, inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"
        )
    ),
    max_leaves=10,
)

# Small lines stand for the real limit: heads here are under 1 KB, as real ones are far under 3.5 MB.
SMALL = 8_000
small_texts = st.text(max_size=40)
small_heads = st.dictionaries(
    st.sampled_from(["scope", "id", "name", "threatStatus", *OURS]), small_texts, max_size=5
)
sized_evidence = st.builds(
    lambda kind, display, what, size: {"type": kind, "display": display, "what": what, "pad": "x" * size},
    small_texts,
    small_texts,
    values,
    st.sampled_from([0, 100, 1000, 2500, 3500, 3900, 5000, 7500, 9000]),
)
small_provenances = st.builds(Provenance, small_texts, st.none() | small_texts, st.none())


def written(
    report: bytes, provenance: Provenance, shape: str, longest: int = LONGEST_LINE_BYTES
) -> list[bytes]:
    lines = list(report_lines(known(report), provenance, shape, longest).lines)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 and b"\r" not in line for line in lines)
    return lines


def inner(document: dict[str, Any], shape: str) -> dict[str, Any]:
    """The report that a line holds, less our own names."""
    report = document if shape == "report" else document["reports"][0]
    return {name: value for name, value in report.items() if name not in OURS}


@given(reports, provenances, SHAPES, st.booleans(), st.none() | st.integers(0, 3))
def test_a_line_says_what_the_report_said_and_whose_it_is(
    report: dict[str, Any], provenance: Provenance, shape: str, ascii_only: bool, indent: int | None
) -> None:
    raw = sanitize_utf8(
        json.dumps(report, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    )
    (line,) = written(raw, provenance, shape)
    document = json.loads(line.decode())
    assert inner(document, shape) == {k: v for k, v in json.loads(raw).items() if k not in OURS}
    assert document["_threatId"] == provenance.threat_id
    assert document.get("_campaignId") == provenance.campaign_id
    assert document.get("generated") == (
        json.loads(bytes(provenance.generated)) if provenance.generated else None
    )
    assert not {"_part", "_parts"} & set(document)


@given(st.lists(spelled, max_size=5), SHAPES)
def test_evidence_that_is_sound_is_handed_on_byte_by_byte(items: list[str], shape: str) -> None:
    evidence = ",".join(items).encode()
    raw = b'{"scope":"THREAT","forensics":[' + evidence + b"]}"
    assert sanitize_utf8(raw) == raw
    (line,) = written(raw, Provenance("t", None, None), shape)
    assert b'{"scope":"THREAT","forensics":[' + evidence + b"]" in line


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.slow
@settings(max_examples=300)
@given(small_heads, st.lists(sized_evidence | values, max_size=12), small_provenances, SHAPES)
def test_a_split_report_keeps_every_evidence_in_order_in_consecutive_parts(
    head: dict[str, str], items: list[Any], provenance: Provenance, shape: str
) -> None:
    lines = written(compact(head | {"forensics": items}), provenance, shape, SMALL)
    documents = [json.loads(line) for line in lines]
    parts = [inner(document, shape) for document in documents]
    assert max(map(len, lines)) <= SMALL
    for item, came_out in zip(items, [kept for part in parts for kept in part["forensics"]], strict=True):
        size = len(compact(item))
        assert came_out == item or (came_out["_bytes"] == size and size > SMALL // 4)
    if len(documents) > 1:
        marks = [(document["_part"], document["_parts"]) for document in documents]
        assert marks == [(number, len(documents)) for number in range(1, len(documents) + 1)]
    own = {name: value for name, value in head.items() if name not in OURS}
    for document, part in zip(documents, parts, strict=True):
        assert document["_threatId"] == provenance.threat_id
        assert {name: value for name, value in part.items() if name != "forensics"} == own


@given(st.binary() | values.map(lambda value: json.dumps(value).encode()) | st.text().map(str.encode))
def test_whatever_came_is_utf8_once_repaired_and_repairing_again_changes_nothing(body: bytes) -> None:
    once = sanitize_utf8(body)
    once.decode()
    assert sanitize_utf8(once) == once.removeprefix(b"\xef\xbb\xbf")


@given(
    st.text(
        alphabet=st.characters(exclude_categories=[]) | st.sampled_from("\\\ud83d\ude00\ud800u"), max_size=12
    )
)
def test_a_lone_surrogate_becomes_the_replacement_character_and_all_else_stays(text: str) -> None:
    escaped = json.dumps([text]).encode()
    whole = json.loads(escaped)[0]
    assert msgspec.json.decode(sanitize_utf8(escaped)) == [LONE.sub("\ufffd", whole)]


@settings(max_examples=1000)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_a_spoilt_answer_makes_sound_lines_or_none(junk: bytes, place: int) -> None:
    sound = json.dumps(
        {"scope": "THREAT", "id": "x", "forensics": [{"type": "url", "what": {"n": 1.5, "t": "é\ud800"}}]}
    ).encode()
    body = sanitize_utf8(sound[:place] + junk + sound[place:])
    try:
        lines = written(body, Provenance("t", None, None), "report")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert json.loads(lines[0].decode())["_threatId"] == "t"
