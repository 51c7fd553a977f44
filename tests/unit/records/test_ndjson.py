from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

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
    assert fields is not None
    return fields


PLAIN = Provenance("t1", None, None)
FULL = Provenance("t1", "c1", msgspec.Raw(b'"2026-03-04T10:00:00.000Z"'))
MIB = 1024 * 1024


@dataclass
class Made:
    lines: list[bytes]
    cut: list[str]


def lines_of(
    report: bytes | dict[str, Any],
    provenance: Provenance = FULL,
    shape: str = "report",
    longest: int = LONGEST_LINE_BYTES,
) -> Made:
    raw = report if isinstance(report, bytes) else json.dumps(report).encode()
    made = report_lines(known(raw), provenance, shape, longest)
    return Made(list(made.lines), made.cut)


def read(lines: Made) -> list[dict[str, Any]]:
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines.lines)
    return [json.loads(line) for line in lines.lines]


def evidence_of(documents: list[dict[str, Any]]) -> list[Any]:
    return [item for document in documents for item in document["forensics"]]


def test_a_flat_line_is_the_report_with_its_provenance() -> None:
    report = {"scope": "THREAT", "id": "x", "forensics": [{"type": "url"}]}
    expected = {"_threatId": "t1", "_campaignId": "c1", "generated": "2026-03-04T10:00:00.000Z"}
    assert read(lines_of(report)) == [report | expected]


def test_a_response_line_is_the_answer_with_one_report() -> None:
    report = {"scope": "THREAT", "id": "x", "forensics": []}
    assert read(lines_of(report, shape="response")) == [
        {"generated": "2026-03-04T10:00:00.000Z", "reports": [report], "_threatId": "t1", "_campaignId": "c1"}
    ]


@pytest.mark.parametrize("shape", ["report", "response"])
def test_what_is_not_known_of_the_provenance_is_left_out(shape: str) -> None:
    (line,) = read(lines_of({"id": "x"}, PLAIN, shape))
    assert not {"generated", "_campaignId", "_part", "_parts"} & set(line)


def test_a_report_is_compacted_to_one_line() -> None:
    assert lines_of(b'{ "a" :\r\n [ 1 ,\t{ } ] }', PLAIN).lines == [b'{"a":[1,{}],"_threatId":"t1"}\n']


@pytest.mark.parametrize("shape", ["report", "response"])
def test_what_a_report_says_under_our_names_gives_way(shape: str) -> None:
    names = ("_threatId", "_campaignId", "generated", "_part", "_parts")
    (line,) = read(lines_of(dict.fromkeys(names, "hostile"), PLAIN, shape))
    assert "hostile" not in json.dumps(line)
    assert line["_threatId"] == "t1"


def test_the_bytes_of_evidence_are_handed_on_as_they_came() -> None:
    numbers = rb'"n":1.50,"e":1E+2,"big":123456789012345678901234567890,"inf":1e999'
    evidence = b"{" + numbers + rb',"s":"\u00e9\/\ud83d\ude00","k":1,"k":2,"nul":"\u0000"}'
    assert b'"forensics":[' + evidence + b"]" in lines_of(b'{"forensics":[' + evidence + b"]}").lines[0]


def test_a_line_at_the_limit_is_not_split() -> None:
    report = {"forensics": ["x" * 1000] * 10}
    length = len(lines_of(report).lines[0])
    assert len(lines_of(report, longest=length).lines) == 1
    assert len(lines_of(report, longest=length - 1).lines) == 2


@pytest.mark.parametrize("shape", ["report", "response"])
def test_a_long_report_is_split_into_lines_that_repeat_its_head(shape: str) -> None:
    evidence = [{"number": number, "pad": "x" * 400_000} for number in range(20)]
    lines = lines_of({"scope": "CAMPAIGN", "id": "c1", "forensics": evidence, "last": True}, shape=shape)
    documents = read(lines)
    reports = documents if shape == "report" else [document["reports"][0] for document in documents]
    assert [(document["_part"], document["_parts"]) for document in documents] == [(1, 3), (2, 3), (3, 3)]
    assert all(report["scope"] == "CAMPAIGN" and report["last"] for report in reports)
    assert all(document["generated"] == "2026-03-04T10:00:00.000Z" for document in documents)
    assert evidence_of(reports) == evidence
    assert max(map(len, lines.lines)) <= LONGEST_LINE_BYTES
    assert lines.cut == []


def test_an_evidence_that_fits_into_a_line_is_never_replaced() -> None:
    evidence = [{"type": "url", "what": "x" * size} for size in (1_800_000, 3_400_000, 10)]
    lines = lines_of({"id": "x", "forensics": evidence})
    came_out = [len(item.get("what", "")) for item in evidence_of(read(lines))]
    assert came_out == [1_800_000, 3_400_000, 10]
    assert lines.cut == []


def test_one_evidence_too_large_for_any_line_becomes_its_type_display_and_size() -> None:
    large = {"type": "screenshot", "display": "a picture", "what": {"data": "x" * 4_000_000}}
    small = {"type": "url"}
    lines = lines_of({"id": "x", "forensics": [small, large, small]})
    size = len(json.dumps(large, separators=(",", ":")))
    assert evidence_of(read(lines)) == [
        small,
        {"type": "screenshot", "display": "a picture", "_bytes": size},
        small,
    ]
    assert lines.cut == [f"an evidence item of type screenshot of {size} bytes"]


@pytest.mark.parametrize(
    "odd", ["x" * 4_000_000, [["x" * 4_000_000]], {"type": 5, "display": ["x" * 4_000_000]}]
)
def test_an_oversize_evidence_of_an_odd_form_becomes_its_size(odd: Any) -> None:
    (line,) = read(lines_of({"forensics": [odd]}))
    assert line["forensics"] == [{"_bytes": len(json.dumps(odd, separators=(",", ":")))}]


def test_a_display_that_is_the_size_itself_is_cut() -> None:
    lines = lines_of({"forensics": [{"type": "url", "display": "\u00e9" * 2_000_000}]})
    (line,) = read(lines)
    assert (line["forensics"][0]["type"], len(line["forensics"][0]["display"])) == ("url", 1000)


def test_an_oversize_evidence_with_a_number_out_of_range_keeps_its_type() -> None:
    evidence = b'{"type":"url","display":1e999,"pad":"' + b"x" * 4_000_000 + b'"}'
    (line,) = read(lines_of(b'{"forensics":[' + evidence + b"]}"))
    assert line["forensics"] == [{"type": "url", "_bytes": len(evidence)}]


def test_a_head_field_too_large_to_repeat_is_left_out_and_named() -> None:
    lines = lines_of({"id": "x", "notes": "n" * 4_000_000, "forensics": [1]})
    (line,) = read(lines)
    assert "notes" not in line
    assert (line["id"], line["forensics"]) == ("x", [1])
    assert lines.cut == ["the field notes of 4000007 bytes"]


def test_the_fields_that_name_a_report_are_kept_beside_a_thousand_others() -> None:
    fields = {f"field{number}": "x" * 50_000 for number in range(100)}
    lines = lines_of(fields | {"scope": "THREAT", "id": "x", "name": "n", "threatStatus": "active"})
    (line,) = read(lines)
    assert (line["scope"], line["id"], line["name"], line["threatStatus"]) == ("THREAT", "x", "n", "active")
    assert len(lines.lines[0]) <= LONGEST_LINE_BYTES
    assert lines.cut


def countless(alphabet: int, ascii_only: bool) -> bytes:
    """A report of 270,000 fields with a name of three characters each."""
    names = (
        chr(alphabet + i) + chr(alphabet + j) + chr(alphabet + k)
        for i in range(65)
        for j in range(65)
        for k in range(65)
    )
    return json.dumps(dict.fromkeys(names, 1), ensure_ascii=ascii_only).encode()


@pytest.mark.slow
@pytest.mark.parametrize(("alphabet", "ascii_only"), [(0x1F600, False), (0x80, True)])
def test_no_line_is_too_long_for_a_head_of_countless_fields(alphabet: int, ascii_only: bool) -> None:
    longest = max(len(line) for line in lines_of(countless(alphabet, ascii_only)).lines)
    assert longest <= LONGEST_LINE_BYTES


@pytest.mark.slow
def test_countless_fields_left_out_are_told_in_a_few_words() -> None:
    count = len(lines_of(countless(0x1F600, ascii_only=True)).cut)
    assert 0 < count <= 100


@pytest.mark.parametrize("forensics", [None, {"type": "url"}, "text", 5])
def test_a_long_report_whose_evidence_is_no_list_is_still_written(forensics: Any) -> None:
    lines = lines_of({"id": "x", "pad": "x" * 4_000_000, "forensics": forensics})
    assert evidence_of(read(lines)) == [forensics]


def test_a_long_report_without_evidence_is_one_part() -> None:
    (line,) = read(lines_of({"id": "x", "pad": "x" * 4_000_000}))
    assert (line["id"], line["_part"], line["_parts"]) == ("x", 1, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"\xef\xbb\xbf{}", b"{}"),
        (rb'"\ud800"', rb'"\ufffd"'),
        (rb'"\udc00\ud800"', rb'"\ufffd\ufffd"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\uD83D\uDE00\uD83D"', rb'"\uD83D\uDE00\ufffd"'),
        (rb'"\\ud800"', rb'"\\ud800"'),
        (rb'"\\\ud800"', rb'"\\\ufffd"'),
        (rb'"\\\\ud800"', rb'"\\\\ud800"'),
        (rb'"\ud83dx\ude00"', rb'"\ufffdx\ufffd"'),
        (rb'"\n\udfff"', rb'"\n\ufffd"'),
        (b'"\xff"', '"\ufffd"'.encode()),
        (b'"\xed\xa0\x80"', '"\ufffd\ufffd\ufffd"'.encode()),
    ],
)
def test_only_what_no_utf8_can_hold_is_replaced(given: bytes, expected: bytes) -> None:
    assert sanitize_utf8(given) == expected


def test_a_flood_of_backslashes_is_repaired_in_a_moment() -> None:
    body = b'"' + b"\\\\" * (8 * MIB) + rb"\ud800" + b'"'
    same = sanitize_utf8(body) == b'"' + b"\\\\" * (8 * MIB) + rb"\ufffd" + b'"'
    assert same


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(rb"\ud800" * 500_000, id="lone surrogates"),
        pytest.param(rb"\\" * 1_500_000 + rb"\ud800", id="backslashes"),
        pytest.param(b"\xff" * 1000 + b"x" * 3_000_000 + "😀".encode(), id="not all UTF-8"),
    ],
)
def test_repairing_takes_little_more_than_the_body_and_its_copy(body: bytes) -> None:
    tracemalloc.start()
    try:
        changed = sanitize_utf8(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert changed != body
    assert peak < 2.5 * len(body)


def test_bytes_that_are_no_text_are_refused_before_they_are_made_one_of_three_times_the_length() -> None:
    with pytest.raises(UnicodeDecodeError, match="too much of it is not UTF-8"):
        sanitize_utf8(b"\xff" * 3_000_000)
