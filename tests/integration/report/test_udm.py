"""The UDM preview against Google's own schema, and its notes against what went in."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.backstory.types.udm import UDM
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.report.records import Report
from tap_forensics.report.udm import ASSUMED, WRONG, Notes, udm_events
from tap_forensics.sandbox.reports import EVIDENCE, evidence
from tests.support.report.commands import run, started

SCHEMA = UDM.pb()
NETWORK = {
    "type": "network",
    "malicious": True,
    "what": {"action": "connect", "ip": "198.51.100.7", "port": "8443", "type": "tcp"},
    "platforms": [{"name": "Win10", "os": "win"}],
}


def report(*items: Any, **fields: Any) -> Report:
    known: dict[str, Any] = {
        "place": "x:1",
        "scope": "THREAT",
        "id": "t1",
        "name": "host.example.com/a",
        "status": "active",
        "threat_id": "t1",
        "campaign_id": None,
        "generated": "2026-03-04T10:15:30.120Z",
        "evidence": list(items),
    }
    return Report(**known | fields)


def mapped(*items: Any, **fields: Any) -> tuple[list[dict[str, Any]], Notes]:
    notes = Notes()
    events = list(udm_events(report(*items, **fields), notes))
    for event in events:
        # Strict: an unknown field or a value of a wrong type raises.
        ParseDict(json.loads(json.dumps(event)), SCHEMA())
    return events, notes


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def test_a_connection_is_mapped_as_the_table_says() -> None:
    [event], notes = mapped(NETWORK)
    assert event == {
        "metadata": {
            "event_timestamp": "2026-03-04T10:15:30.120Z",
            "event_type": "STATUS_UPDATE",
            "vendor_name": "Proofpoint",
            "product_name": "TAP Forensics",
            "product_event_type": "Forensic Reports",
        },
        "principal": {
            "ip": ["198.51.100.7"],
            "port": 8443,
            "asset": {"ip": ["198.51.100.7"], "platform_software": {"platform": "WINDOWS"}},
        },
        "network": {"ip_protocol": "TCP"},
        "additional": {"malicious": "true", "threat_type": "network"},
        "security_result": [
            {"threat_id": "t1", "threat_name": "host.example.com/a", "threat_status": "ACTIVE"}
        ],
    }
    assert notes.not_mapped == {"network.action": 1, "platforms": 1}
    assert {fault for fault, count in notes.wrong.items() if count} == {
        "ip_in_principal",
        "indicator_in_principal",
    }


@pytest.mark.parametrize("kind", EVIDENCE)
def test_every_type_of_evidence_fits_the_schema(kind: str) -> None:
    items = [evidence(random.Random(seed), kind) for seed in range(20)]
    events, notes = mapped(*items)
    assert len(events) == notes.events == 20
    assert {event["additional"]["threat_type"] for event in events} == {kind}


@pytest.mark.parametrize("kind", EVIDENCE)
def test_every_value_of_evidence_is_in_the_event_or_in_the_notes(kind: str) -> None:
    item = evidence(random.Random(5), kind)
    [event], notes = mapped(item)
    mapped_values = {str(value).lower() for value in leaves(event)}
    for name, value in item["what"].items():
        is_mapped = all(str(leaf).lower() in mapped_values for leaf in leaves(value))
        is_noted = any(noted.startswith(f"{kind}.{name}") for noted in notes.not_mapped)
        assert is_mapped or is_noted or value is None, name


def test_without_an_identifier_in_the_principal_no_status_update_is_shown() -> None:
    [event], notes = mapped({"type": "url", "what": {"url": "https://host.example.com/a"}})
    assert event["metadata"]["event_type"] == "GENERIC_EVENT"
    assert notes.wrong["no_identifier"] == 1


def test_a_sandbox_that_is_no_windows_is_named() -> None:
    platforms = [[{"name": "Mac", "os": "macos"}], [{"name": "Win7", "os": "win"}], "odd", None]
    _, notes = mapped(*({"type": "file", "platforms": given} for given in platforms))
    assert notes.wrong["not_windows"] == 1


@pytest.mark.parametrize("generated", [None, "", "yesterday", "0000-00-00T00:00:00Z"])
def test_a_line_without_a_usable_time_gives_an_event_without_one(generated: str | None) -> None:
    [event], notes = mapped(NETWORK, generated=generated)
    assert "event_timestamp" not in event["metadata"]
    assert notes.without_time == 1


def test_an_unusable_value_is_not_mapped_but_noted() -> None:
    what = {"ip": "fe80::1%eth0", "port": "http", "type": "quic", "url": ["x"], "sha256": "ab", "path": 7}
    [event], notes = mapped({"type": "network", "what": what})
    assert event["principal"] == {"asset": {"platform_software": {"platform": "WINDOWS"}}}
    assert set(notes.not_mapped) == {f"network.{name} (unusable or one too many)" for name in what}


@pytest.mark.parametrize("port", [0, -1, 65536, "65536", True, 443.0, "٤٤٣", 2**70])
def test_what_is_no_port_is_not_mapped(port: Any) -> None:
    [event], notes = mapped({"type": "network", "what": {"port": port}})
    assert "port" not in event["principal"]
    assert notes.not_mapped["network.port (unusable or one too many)"] == 1


def test_evidence_that_is_no_object_is_counted_as_not_mappable() -> None:
    events, notes = mapped(None, 3, "text", [], NETWORK)
    assert (len(events), notes.not_mappable) == (1, 4)


def test_names_of_fields_are_shown_harmless_and_not_without_end() -> None:
    what = {f"odd\u202e{number}": 1 for number in range(1000)}
    _, notes = mapped({"type": "url", "what": what})
    assert len(notes.not_mapped) <= 201
    assert all(name.isprintable() for name in notes.not_mapped)
    assert sum(notes.not_mapped.values()) == 1000


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
) | st.sampled_from(["198.51.100.1", "2001:db8::1", "A" * 64, "443", 65535, 65536, "tcp", "ICMP", "x" * 9000])
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(texts, scalars, max_size=3)
fields = ["ip", "ips", "host", "domain", "domains", "port", "type", "url", "path", "sha256", "cnames"]
whats = st.dictionaries(st.sampled_from(fields) | texts, values, max_size=8)
items = values | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("engine", "malicious", "platforms", "note"), values)
).flatmap(
    lambda item: st.builds(
        lambda kind, what: item | {"type": kind, "what": what},
        st.sampled_from([*EVIDENCE]) | scalars,
        whats | values,
    )
)
optional_text = st.none() | texts


@given(
    st.lists(items, max_size=4),
    optional_text,
    st.sampled_from(["active", "cleared", "falsePositive", "", "odd"]),
    optional_text | st.datetimes().map(lambda moment: moment.isoformat()),
)
def test_whatever_the_evidence_is_it_fits_the_schema_or_is_counted(
    given_items: list[Any], name: str | None, status: str, generated: str | None
) -> None:
    events, notes = mapped(*given_items, name=name, status=status, generated=generated)
    assert len(events) == notes.events == sum(isinstance(item, dict) for item in given_items)
    assert notes.not_mappable == len(given_items) - len(events)


def test_the_command_writes_events_and_notes_apart(folder: Path, tmp_path: Path) -> None:
    notes_file = tmp_path / "notes.json"
    completed = run("udm", "--json", "--notes", notes_file, folder)
    assert (completed.returncode, completed.stderr) == (0, b"")
    events = [json.loads(line) for line in completed.stdout.splitlines()]
    notes = json.loads(notes_file.read_text(encoding="utf-8"))
    assert notes["events"] == len(events) > 100
    assert notes["assumed"] == list(ASSUMED)
    assert {entry["fault"] for entry in notes["wrong"]} <= set(WRONG)
    for event in events:
        ParseDict(event, SCHEMA())


UNPRINTABLE = "\x1b]0;t\x07\x7f\x9b31m\u202e\u2066\u200b\u2028\ufeff\U000e0001"


@pytest.mark.parametrize("words", [["udm"], ["udm", "--json"], ["report"], ["report", "--json"]])
def test_nothing_in_the_evidence_can_act_on_a_terminal(words: list[str], tmp_path: Path) -> None:
    what = {"url": f"https://ü.example.com/{UNPRINTABLE}", UNPRINTABLE: 1, "ip": "192.0.2.1"}
    item = {"type": UNPRINTABLE, "what": what, UNPRINTABLE: UNPRINTABLE}
    document = {"scope": "THREAT", "id": UNPRINTABLE, "name": UNPRINTABLE, "forensics": [item]}
    source = tmp_path / f"a{UNPRINTABLE}.ndjson"
    source.write_text(json.dumps(document) + "\nodd\n", encoding="utf-8")
    page = ["-o", tmp_path / f"{UNPRINTABLE}.html"] if "report" in words else []
    completed = run(*words, source, *page)
    assert completed.returncode == 0
    assert all(line.isprintable() for line in (completed.stdout + completed.stderr).decode().split("\n"))


def test_what_is_escaped_for_the_terminal_reads_the_same(tmp_path: Path) -> None:
    url = f"https://ü.example.com/{UNPRINTABLE}"
    source = tmp_path / "a.ndjson"
    source.write_text(json.dumps({"forensics": [{"type": "url", "what": {"url": url}}]}))
    output = run("udm", source).stdout.decode()
    assert json.loads(output)["principal"]["url"] == url
    assert "ü" in output


def test_the_notes_for_a_person_are_on_stderr(folder: Path) -> None:
    stderr = run("udm", folder).stderr.decode()
    for words in ("events from", "Not mapped", "dns: cnames", "Wrong in the published table", "Assumed"):
        assert words in stderr
    assert max(map(len, stderr.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (("udm", "-"), b"", 1),
        (("udm", "-"), b"no json\n", 1),
        (("udm",), b"", 2),
        (("udm", "-", "--x"), b"", 2),
    ],
)
def test_nothing_readable_and_wrong_usage_have_their_exit_codes(
    words: tuple[str, ...], stdin: bytes, code: int
) -> None:
    completed = run(*words, stdin=stdin)
    assert (completed.returncode, completed.stdout) == (code, b"")
    assert b"Traceback" not in completed.stderr


def test_a_reader_that_goes_away_is_no_fault_of_ours(folder: Path) -> None:
    with started("udm", folder) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b'{"metadata"')
        process.stdout.close()
        assert process.stderr.read() == b""


def test_the_help_has_examples_and_exit_codes() -> None:
    help_text = run("udm", "--help").stdout.decode()
    assert "gs://BUCKET" in help_text
    assert "With --json" in help_text
    assert "Exit codes" in help_text
