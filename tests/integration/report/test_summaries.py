"""Threat summaries beside evidence: on the page, in the exports, in UDM events."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from google.backstory.types.udm import UDM
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.report.page.findings import find
from tap_forensics.report.records import Report, Tally, read_records
from tap_forensics.report.source import Line
from tap_forensics.report.summaries import SummaryIndex, summary_of
from tap_forensics.report.udm import Notes, udm_events
from tests.support.lab import Lab
from tests.support.peak import measured
from tests.support.report.commands import run
from tests.support.report.hostile import TRICKS
from tests.support.report.made import malicious, report

SCHEMA = UDM.pb()
MOST_MEBIBYTES = 350
SUMMARY: dict[str, Any] = {
    "id": "t1",
    "identifiedAt": "2026-03-04T09:00:00Z",
    "name": "host.example.com/a",
    "type": "url",
    "category": "phish",
    "status": "active",
    "severity": "High",
    "severityScore": 870,
    "actors": [{"id": "a-1", "name": "TA-example"}],
    "families": [{"id": "f-1", "name": "Example Stealer"}],
    "malware": [{"id": "m-1", "name": None}],
    "techniques": [{"id": "T1566", "name": "Phishing"}],
    "brands": [{"id": "b-1", "name": "Example Bank"}],
    "_threatId": "t1",
}
EVIDENCE = report(malicious("url", url="https://host.example.com/a"))


def write(folder: Path, **objects: list[dict[str, Any]]) -> Path:
    """`tap_forensics` before `tap_threat_summaries`, as in a bucket."""
    for stem, documents in objects.items():
        lines = "".join(json.dumps(document) + "\n" for document in documents)
        (folder / f"{stem}_20260304_100000.ndjson").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    other = report(malicious("url", url="https://other.example.com/"), id="t2", _threatId="t2")
    campaign = report(malicious("file", sha256="a" * 64), scope="CAMPAIGN", id="c1")
    return write(tmp_path, tap_forensics=[EVIDENCE, other, campaign], tap_threat_summaries=[SUMMARY])


def test_the_page_and_its_exports_show_them_next_to_their_threat(source: Path, tmp_path: Path) -> None:
    page, table, bundle = tmp_path / "page.html", tmp_path / "iocs.csv", tmp_path / "iocs.json"
    done = run("report", source, "-o", page, "--csv", table, "--stix", bundle, "--json")
    result = json.loads(done.stdout)
    assert (result["reports"], result["summaries"], result["odd_lines"]) == (3, 1, 0)
    html = page.read_text(encoding="utf-8")
    block = html.partition('id="data">')[2].partition("</script>")[0]
    summaries = {entry["id"]: entry["summary"] for entry in json.loads(block)["reports"]}
    assert summaries["t1"] == {
        "severity": "High (870)",
        "category": "phish",
        "actors": "TA-example",
        "families": "Example Stealer",
        "malware": "m-1",
        "techniques": "Phishing",
        "brands": "Example Bank",
    }
    assert not any(summaries["t2"].values())
    rows = {row["indicator"]: row for row in csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))}
    [own] = [row for row in rows.values() if "t1" in row["report_ids"]]
    named = [own[key] for key in ("severity", "actors", "families", "malware", "techniques")]
    assert named == ["High (870)", "TA-example", "Example Stealer", "m-1", "Phishing"]
    assert rows["https://other.example.com/"]["actors"] == ""
    labels = [one.get("labels") for one in json.loads(bundle.read_text(encoding="utf-8"))["objects"]]
    named = ["severity: High (870)", "actors: TA-example", "families: Example Stealer"]
    assert [*named, "malware: m-1", "techniques: Phishing"] in labels
    assert labels.count(None) == 3


def test_udm_events_of_the_threat_have_them_and_others_do_not(source: Path) -> None:
    done = run("udm", source, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    results = {event["security_result"][0]["threat_id"]: event["security_result"][0] for event in events}
    assert results["t1"] == {
        "threat_id": "t1",
        "threat_name": "n",
        "threat_status": "ACTIVE",
        "severity": "HIGH",
        "severity_details": "High (870)",
        "category": ["MAIL_PHISHING"],
        "category_details": ["phish"],
        "associations": [
            {"type": "THREAT_ACTOR", "id": "a-1", "name": "TA-example"},
            {"type": "MALWARE", "id": "f-1", "name": "Example Stealer"},
            {"type": "MALWARE", "id": "m-1"},
        ],
        "attack_details": {"techniques": [{"id": "T1566", "name": "Phishing"}]},
    }
    assert results["t2"].keys() == results["c1"].keys() == {"threat_id", "threat_name", "threat_status"}
    for event in events:
        ParseDict(event, SCHEMA())
    notes = json.loads(done.stderr)
    assert (notes["summaries"], notes["with_summary"], notes["odd_lines"]) == (1, 1, 0)
    assert "threat summaries" in notes["assumed"][-1]


def test_in_a_bucket_they_are_read_before_the_evidence(collected: Lab) -> None:
    threat_id = next(line["id"] for line in collected.lines() if line.get("scope") == "THREAT")
    name = "tap-summaries/tap_threat_summaries_20260304_100000.ndjson"
    collected.bucket.put(name, json.dumps(SUMMARY | {"id": threat_id, "_threatId": threat_id}) + "\n")
    env = {"STORAGE_EMULATOR_HOST": collected.bucket.url}
    done = run("udm", f"gs://{collected.bucket.name}/", "--json", env=env)
    collected.bucket.delete(name)
    notes = json.loads(done.stderr)
    assert notes["summaries"] == 1
    assert 0 < notes["with_summary"] < notes["events"]


def test_from_stdin_they_count_for_the_evidence_after_them() -> None:
    lines = [json.dumps(document).encode() + b"\n" for document in (SUMMARY, EVIDENCE)]
    for order, expected in ((lines, 1), (lines[::-1], 0)):
        done = run("udm", "-", "--json", stdin=b"".join(order))
        assert json.loads(done.stderr)["with_summary"] == expected


def test_the_newest_summary_counts_and_gives_a_missing_status() -> None:
    last = SUMMARY | {"severity": "low", "status": "cleared"}
    documents = [SUMMARY, report(threatStatus=None, name=None), last]
    lines = [Line("x:1", json.dumps(document).encode()) for document in documents]
    [entry] = find(read_records(lines, Tally()), malicious_only=False).entries
    assert (entry.summary.severity, entry.status) == ("low (870)", "cleared")
    assert entry.name == "host[.]example[.]com/a"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"severity": "low", "severityScore": None}, "low"),
        ({"severity": None, "severityScore": 12.6}, "13"),
        ({"severity": 4, "severityScore": True}, ""),
        ({"severity": "", "severityScore": 1e300}, ""),
    ],
)
def test_a_severity_is_said_as_far_as_it_is_known(fields: dict[str, Any], words: str) -> None:
    summary = summary_of(SUMMARY | fields)
    assert summary
    assert summary.severity_words() == words


@pytest.mark.parametrize(
    "document", [{"id": "a"}, {"severity": "high"}, {"id": 3, "actors": []}, {"id": " ", "malware": []}]
)
def test_what_has_no_id_or_nothing_to_say_is_no_summary(document: dict[str, Any]) -> None:
    assert summary_of(document) is None


texts = st.text(max_size=9) | st.sampled_from(TRICKS)
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name"]) | texts, inner)
    ),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(SUMMARY.keys() - {"id"}, odd)), odd)
def test_whatever_a_summary_says_its_event_fits_the_schema(fields: dict[str, Any], item: Any) -> None:
    summary = summary_of({"severity": None, **fields, "_threatId": "t1"})
    assert summary
    [record] = read_records(
        [Line("x:1", json.dumps(report({"type": "url", "note": item})).encode())], Tally()
    )
    assert isinstance(record, Report)
    for event in udm_events(record, Notes(), summary):
        # Lone surrogates cannot be in a line; `read_records` has replaced them.
        ParseDict(json.loads(json.dumps(event).encode("utf-8", "replace")), SCHEMA())


def test_the_weight_of_summaries_is_counted_once() -> None:
    index, summary = SummaryIndex(), summary_of(SUMMARY)
    assert summary
    for _ in range(3):
        index.add("t1", summary)
    assert index.weight == summary.weight()


@pytest.mark.parametrize("name", ["udm", "report"])
def test_very_many_large_summaries_do_not_fill_the_memory(name: str, tmp_path: Path) -> None:
    many = [{"id": "x" * 200, "name": f"{number}" + "y" * 200} for number in range(20)]
    fields = dict.fromkeys(("actors", "families", "malware", "techniques", "brands"), many)
    source = tmp_path / "tap_threat_summaries_20260304_100000.ndjson"
    with source.open("w", encoding="utf-8") as file:
        for number in range(2_600):
            file.write(json.dumps({"id": f"t{number}", **fields}) + "\n")
    done = measured(name, source, *(["-o", tmp_path / "r.html"] if name == "report" else []))
    assert (done.code, done.peak_mebibytes < MOST_MEBIBYTES) == (1, True), done.peak_mebibytes
    assert "give a part of it" in done.stderr
