"""Whatever shape a line of evidence has, both shapes are made of it as the function writes them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.records.ndjson import Provenance, report_lines
from tap_forensics.secops.samples import SHAPES, both_shapes, generated_in, line_id, newest_line

IDS = st.text("0123456789abcdef", min_size=64, max_size=64)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
REPORTS = st.fixed_dictionaries({"scope": st.just("THREAT"), "forensics": st.lists(VALUES, min_size=1)})


@given(REPORTS, IDS, st.none() | st.uuids(), st.none() | st.just("2026-11-26T20:00:00.120Z"))
def test_both_shapes_are_made_of_either(
    report: object, threat: str, campaign: object, made: str | None
) -> None:
    fields = msgspec.json.decode(msgspec.json.encode(report), type=dict[str, msgspec.Raw])
    generated = None if made is None else msgspec.Raw(msgspec.json.encode(made))
    provenance = Provenance(threat, None if campaign is None else str(campaign), generated)
    written = {shape: b"".join(report_lines(fields, provenance, shape, 10**6).lines) for shape in SHAPES}
    for line in written.values():
        assert newest_line(b"{}\n" + line, "_threatId") == line.rstrip(b"\n")
        assert both_shapes(line) == {shape: other.rstrip(b"\n") for shape, other in written.items()}
        assert (line_id(line, "_threatId"), generated_in(line)) == (threat, made)


@given(st.binary() | VALUES.map(msgspec.json.encode))
def test_nothing_in_the_bucket_ends_the_command(data: bytes) -> None:
    marked = b'{"_threatId":"%s","reports":%s}' % (b"a" * 64, data)
    for line in (data, marked, b'{"_threatId":"%s","a":%s}' % (b"a" * 64, b"[" * 100_000)):
        newest_line(line, "_threatId")
        both_shapes(line)
        generated_in(line)
