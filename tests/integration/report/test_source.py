"""SOURCE: whatever it is, the same records come out of it, and nothing odd in it stops the rest."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.report.records import EventLine, Record, Report, Tally, read_records
from tap_forensics.report.source import LONGEST_LINE_BYTES, Line, NoSource, SourceFault, source_lines
from tests.support.lab import Lab, open_lab
from tests.support.report.commands import run

ITEM = {"type": "url", "what": {"url": "https://host.example.com/a"}}
REPORT = {"scope": "THREAT", "id": "a", "name": "n", "forensics": [ITEM]}


def records(*documents: Any) -> tuple[list[Record], Tally]:
    lines = (Line(f"x:{n}", json.dumps(document).encode()) for n, document in enumerate(documents, 1))
    tally = Tally()
    return list(read_records(lines, tally)), tally


def only_report(*documents: Any) -> Report:
    found, tally = records(*documents)
    assert (len(found), tally.odd_count) == (1, 0), tally
    assert isinstance(found[0], Report)
    return found[0]


def read(source: object, stdin: bytes = b"") -> tuple[list[Record], Tally]:
    tally = Tally()
    return list(read_records(source_lines(str(source), io.BytesIO(stdin)), tally)), tally


def evidence_of(found: list[Record]) -> list[Any]:
    return [record.evidence for record in found if isinstance(record, Report)]


def test_a_file_a_folder_a_gzip_and_stdin_give_the_same(collected: Lab, folder: Path, tmp_path: Path) -> None:
    [(name, data)] = [(n, d) for n, d in collected.evidence().items() if n.startswith("tap-forensics/")]
    packed = tmp_path / "copy.ndjson.gz"
    packed.write_bytes(gzip.compress(data))
    found = evidence_of(read(folder / name)[0])
    assert found
    assert all(evidence_of(read(s, data)[0]) == found for s in (folder / "tap-forensics", packed, "-"))


def test_the_state_beside_the_evidence_is_not_taken_for_it(collected: Lab, folder: Path) -> None:
    assert (folder / "tap-forensics" / "state.json").is_file()
    found, tally = read(folder)
    assert tally.odd_count == 0
    assert {type(record) for record in found} == {Report, EventLine}
    assert tally.lines == sum(data.count(b"\n") for data in collected.evidence().values())


def test_a_bucket_is_read_by_prefix_and_by_object(collected: Lab) -> None:
    [name] = [name for name in collected.evidence() if name.startswith("tap-forensics/")]
    env = {"STORAGE_EMULATOR_HOST": collected.bucket.url}
    outputs = {
        run("udm", f"gs://{collected.bucket.name}/{prefix}", env=env).stdout
        for prefix in ("", "tap-forensics/", "tap-forensics/tap_for", name)
    }
    assert len(outputs) == 1
    assert outputs.pop().count(b"\n") == sum(map(len, evidence_of(read("-", collected.evidence()[name])[0])))


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("nowhere/at\u202eall", 2, r"there is no nowhere/at\u202eall: give a file, a folder"),
        ("gs://", 2, "needs the name of a bucket"),
        ("gs://no-such-bucket/x", 1, "check the bucket's name"),
        ("gs://demo-bucket/no/such/prefix", 1, "no .ndjson or .jsonl object under"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_sentence(
    collected: Lab, source: str, code: int, words: str
) -> None:
    completed = run("udm", source, env={"STORAGE_EMULATOR_HOST": collected.bucket.url})
    stderr = completed.stderr.decode()
    assert (completed.returncode, completed.stdout) == (code, b""), stderr
    assert words in stderr
    assert stderr.count("\n") == 1


def test_an_empty_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceFault, match=r"no .ndjson") as empty:
        read(tmp_path)
    with pytest.raises(NoSource) as missing:
        read(tmp_path / "x")
    assert (empty.value.exit_code, missing.value.exit_code) == (1, 2)


def test_without_google_credentials_the_remedy_is_named(tmp_path: Path) -> None:
    env = dict.fromkeys(("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"), "")
    # No metadata server is asked: this is no machine of Google's.
    env |= {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    completed = run("udm", "gs://some-bucket/", env=env)
    assert completed.returncode == 1
    assert b"gcloud auth application-default login" in completed.stderr
    assert b"Traceback" not in completed.stderr


@pytest.mark.parametrize("shape", ["report", "response"])
def test_both_shapes_as_the_function_writes_them_say_the_same(shape: str) -> None:
    with open_lab(RECORD_SHAPE=shape) as made:
        made.run()
        found, tally = read("-", b"".join(made.evidence().values()))
        truth = made.truth()
    assert tally.odd_count == 0
    reports = [record for record in found if isinstance(record, Report)]
    assert {report.threat_id for report in reports} == {report.id for report in reports} == truth
    assert all(report.generated and report.status and report.evidence for report in reports)


@pytest.mark.parametrize("shape", ["report", "response"])
def test_a_split_report_is_one_report_part_by_part(shape: str) -> None:
    def part(number: int, evidence: list[Any]) -> Any:
        own = REPORT | {"forensics": evidence}
        marks = {"_threatId": "a", "_part": number, "_parts": 3}
        return own | marks if shape == "report" else {"reports": [own], **marks}

    found, tally = records(part(1, [1, 2]), part(2, []), part(3, [3]), part(1, [4]) | {"_parts": 1})
    assert (evidence_of(found), tally.odd_count, tally.reports) == ([[1, 2], [], [3], [4]], 0, 2)
    assert [isinstance(one, Report) and one.continues for one in found] == [False, True, True, False]


def test_a_missing_part_is_named_and_the_rest_is_used() -> None:
    part = REPORT | {"_parts": 3}
    found, tally = records(part | {"_part": 1}, part | {"_part": 3}, REPORT)
    assert [len(evidence) for evidence in evidence_of(found)] == [1, 1, 1]
    assert [place for place, _ in tally.odd] == ["x:1", "x:2"]


@pytest.mark.parametrize(
    "document",
    [
        {"messagesDelivered": [{"GUID": "a", "_eventType": "messagesDelivered"}]},
        {"GUID": "a", "_eventType": "messagesDelivered"},
    ],
)
def test_both_shapes_of_an_event_are_one_event(document: Any) -> None:
    [event], tally = records(document)
    assert isinstance(event, EventLine)
    assert (event.kind, event.fields["GUID"], tally.events) == ("messagesDelivered", "a", 1)


def test_odd_lines_are_named_and_passed_over(tmp_path: Path) -> None:
    good = json.dumps(REPORT).encode()
    odd = [
        b"not json",
        b"[1]",
        b"17",
        b'{"a":1}',
        b'{"reports":[3]}',
        b"[" * 100_000,
        b'{"scope":"THREAT","forensics":7}',
        b"x" * (LONGEST_LINE_BYTES + 5),
    ]
    source = tmp_path / "odd\u202e.ndjson"
    source.write_bytes(b"\n".join([good, *odd, b"", good]))
    found, tally = read(source)
    assert [len(evidence) for evidence in evidence_of(found)] == [1, 0, 1]
    assert [place.rpartition(":")[2] for place, _ in tally.odd] == ["2", "3", "4", "5", "6", "7", "8", "9"]
    assert all(r"odd\u202e.ndjson" in place for place, _ in tally.odd)


def test_a_torn_gzip_gives_what_it_has(tmp_path: Path) -> None:
    lines = "".join(json.dumps(REPORT | {"id": str(number)}) + "\n" for number in range(5000))
    (tmp_path / "torn.ndjson.gz").write_bytes(gzip.compress(lines.encode())[:-2000])
    found, tally = read(tmp_path)
    assert 100 < len(found) < 5000
    assert tally.odd[-1][1] == "not valid gzip from here on"


def test_what_is_no_utf8_or_a_lone_surrogate_is_read_all_the_same() -> None:
    name = r"\ud800 and " + "\xff"
    line = json.dumps(REPORT).replace('"n"', f'"{name}"').encode("latin-1")
    [found], tally = read("-", line)
    assert isinstance(found, Report)
    assert (found.name, tally.odd_count) == ("\ufffd and \ufffd", 0)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ITEMS = st.dictionaries(st.sampled_from(["type", "scope", "forensics"]), SCALARS, max_size=2)
JSON = SCALARS | st.lists(SCALARS | ITEMS, max_size=3) | ITEMS
OUR_KEYS = (
    "reports",
    "forensics",
    "scope",
    "id",
    "_part",
    "_parts",
    "_threatId",
    "_eventType",
    "clicksBlocked",
)


DOCUMENTS = st.dictionaries(st.sampled_from(OUR_KEYS), JSON, max_size=4).map(json.dumps)


@given(st.lists(st.binary(max_size=40) | DOCUMENTS, max_size=6))
def test_no_line_stops_the_reading(written: list[bytes | str]) -> None:
    lines = [line.encode() if isinstance(line, str) else line for line in written]
    whole = b"\n".join([*lines, json.dumps(REPORT).encode()])
    found, tally = read("-", whole)
    last = found[-1]
    assert isinstance(last, Report)
    assert last.name == "n"
    assert tally.lines <= len(whole.split(b"\n"))
