"""Indicators: which ones there are, and that CSV and STIX hold them soundly."""

from __future__ import annotations

import csv
import io
import json
import random
from typing import Any

import pytest
import stix2
from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.report.indicators import INDICATOR_TYPES, indicators_in
from tap_forensics.report.page.exports import csv_text, left_out, list_indicators, stix_text
from tap_forensics.sandbox.reports import EVIDENCE, evidence
from tests.support.lab import START
from tests.support.report import hostile
from tests.support.report.made import findings, malicious, report


def values(*items: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one.kind, one.value) for one in list_indicators(findings(report(*items)).entries)]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (malicious("attachment", sha256="AB" * 32, md5="c" * 32), [("sha256", "ab" * 32), ("md5", "c" * 32)]),
        (malicious("url", url="https://host.example.com/a", ip="198.51.100.1"), ["url", "ip"]),
        (malicious("redirect_chain", url="host.example.com/a?b"), [("url", "host.example.com/a?b")]),
        (
            malicious("dns", host="Host.Example.com.", ips=["2001:DB8::1"]),
            [("domain", "host.example.com"), "ip"],
        ),
        (malicious("dns", host="198.51.100.9", nameservers=["ns1.example.com"]), [("ip", "198.51.100.9")]),
        (malicious("domains", domains=["a.example.com", "b.example.com"]), ["domain", "domain"]),
        (malicious("registry", key=r"HKCU\Run", name="x", value="y"), [("registry", r"HKCU\Run\x")]),
        (malicious("behavior", key="not a registry key", path=r"C:\a.exe"), [("path", r"C:\a.exe")]),
        (malicious("mutex", name=r"Global\m", path=r"C:\holder.exe"), [("mutex", r"Global\m")]),
        (malicious("file", path="https://host.example.com/a"), [("url", "https://host.example.com/a")]),
        (malicious("cookie", domain="c.example.com", key="sid", value="v"), [("domain", "c.example.com")]),
        (malicious("screenshot", url="https://screens.example.com/1.png"), []),
        (malicious("ids", name="ET Rule", signatureId=1), []),
    ],
)
def test_indicators_are_what_can_be_searched_for(item: dict[str, Any], expected: list[Any]) -> None:
    found = values(item)
    assert [
        one if isinstance(want, tuple) else one[0] for one, want in zip(found, expected, strict=True)
    ] == (expected)


def test_only_malicious_evidence_gives_indicators() -> None:
    innocent = {"type": "dns", "malicious": False, "what": {"host": "a.example.com"}}
    assert (
        values(innocent, innocent | {"malicious": "true"}, {k: innocent[k] for k in ("type", "what")}) == []
    )


@pytest.mark.parametrize(
    "what",
    [
        {"url": "javascript:alert(1)"},
        {"url": "https://a.example.com/\nrm -rf"},
        {"sha256": "abc"},
        {"ip": "999.1.1.1"},
        {"host": "no host"},
        {"path": "x" * 9000},
        {"path": "a\x00b"},
    ],
)
def test_what_is_no_sound_indicator_is_counted_and_not_listed(what: dict[str, Any]) -> None:
    [entry] = findings(report(malicious("url", **what))).entries
    assert (entry.indicators, entry.not_listed) == ([], 1)


def test_what_is_without_end_is_cut_and_counted() -> None:
    many = [f"10.0.{number >> 8}.{number & 255}" for number in range(3000)]
    items = [
        malicious("dns", ips=many),
        *([malicious("ids", **dict.fromkeys(map(str, range(100)), 1))] * 700),
    ]
    [entry] = findings(report(*items)).entries
    assert (len(entry.indicators), entry.not_listed) == (2000, 1000)
    assert (len(entry.rows), entry.kinds.total()) == (500, 701)
    assert entry.rows[1].told[-1] == ("further fields", "40")


def test_every_type_of_the_sandbox_is_read() -> None:
    for kind in EVIDENCE:
        found = list(indicators_in(evidence(random.Random(1), kind)))
        assert all(one and one.kind in INDICATOR_TYPES for one in found)


def exported(*documents: dict[str, Any]) -> tuple[str, str]:
    entries = findings(*documents).entries
    listed = list_indicators(entries)
    return csv_text(listed, entries), stix_text(listed, entries, START)


ALL_KINDS = report(
    malicious("attachment", sha256="ab" * 32, md5="c" * 32),
    malicious("url", url="https://host.example.com/it's?a=\\b", ip="198.51.100.1"),
    malicious("dns", host="host.example.com", ips=["2001:db8::1"]),
    malicious("registry", key=r"HKEY_CURRENT_USER\Run", name="it's"),
    malicious("mutex", name=r"Global\m"),
    malicious("file", path=r"C:\Temp\a.exe"),
    malicious("process", path="a.exe"),
)


def test_stix_has_a_sound_indicator_for_each_kind() -> None:
    bundle = stix2.parse(exported(ALL_KINDS)[1])
    patterns = [one.pattern for one in bundle.objects if one.type == "indicator"]
    assert patterns == [
        f"[file:hashes.'SHA-256' = '{'ab' * 32}']",
        f"[file:hashes.MD5 = '{'c' * 32}']",
        r"[url:value = 'https://host.example.com/it\'s?a=\\b']",
        "[domain-name:value = 'host.example.com']",
        "[ipv4-addr:value = '198.51.100.1']",
        "[ipv6-addr:value = '2001:db8::1']",
        r"[windows-registry-key:key = 'HKEY_CURRENT_USER\\Run' AND "
        r"windows-registry-key:values[*].name = 'it\'s']",
        r"[mutex:name = 'Global\\m']",
        r"[file:name = 'a.exe' AND file:parent_directory_ref.path = 'C:\\Temp']",
        "[file:name = 'a.exe']",
    ]


def test_the_same_evidence_gives_the_same_indicators_each_time() -> None:
    def objects() -> list[Any]:
        return [o for o in json.loads(exported(ALL_KINDS)[1])["objects"] if o["type"] == "indicator"]

    assert objects() == objects()


def test_no_cell_of_the_csv_is_a_formula() -> None:
    items = [malicious("process", path=path) for path in hostile.FORMULAS]
    rows = list(csv.DictReader(io.StringIO(exported(report(*items, id="=1+1"))[0])))
    assert {row["indicator"].removeprefix("'") for row in rows} == set(hostile.FORMULAS)
    assert all(cell[:1] not in set("=+-@\t\r\uff1d") for row in rows for cell in row.values())
    assert all(row["report_ids"] == "'=1+1" for row in rows)


FORMULA = set("=+-@\uff1d\uff0b\uff0d\uff20")
NASTY = st.text(st.sampled_from("=+-@;|,\t \"'ax\uff1d\\"), max_size=9)


@given(st.lists(NASTY, min_size=1, max_size=4), NASTY)
def test_no_spreadsheet_sees_a_formula_whatever_its_list_separator(names: list[str], threat: str) -> None:
    items = [malicious("process", path=name) for name in names]
    rows, _ = exported(report(*items, malicious("mutex", name=names[0]), id=threat or "t"))
    cells = [cell for row in csv.reader(io.StringIO(rows)) for cell in row]
    for separator in ";|\t":
        cells += [cell for row in csv.reader(io.StringIO(rows), delimiter=separator) for cell in row]
        # However a reader understands the quotes.
        cells += [cell for line in rows.splitlines() for cell in line.split(separator)]
    assert not [cell for cell in cells if cell.lstrip(' \t"')[:1] in FORMULA and cell.strip(' \t"')]


@pytest.mark.parametrize("cell", ["x;=cmd()", "x; =cmd()", 'x;"=cmd()', "x|@a", "x;-1"])
def test_a_cell_that_a_semicolon_would_make_a_formula_of_is_text(cell: str) -> None:
    rows, bundle = exported(report(malicious("process", path=cell)))
    [row] = csv.DictReader(io.StringIO(rows))
    at = min(cell.index(sign) for sign in "=@-" if sign in cell)
    assert row["indicator"] == f"{cell[:at]}'{cell[at:]}"
    # What is for machines has the true value.
    assert cell in json.loads(bundle)["objects"][1]["pattern"]


def test_common_signs_inside_a_value_are_left_as_they_are() -> None:
    names = ["C:\\a - b.exe", "https://a.example.com/?x=1;y=2", "a,-1", "k;v"]
    rows, _ = exported(report(*(malicious("process", path=name) for name in names)))
    assert {row["indicator"] for row in csv.DictReader(io.StringIO(rows))} == set(names)


def statuses(*told: str | None, withdrawn: bool = False) -> list[str]:
    """Of one indicator that reports of these statuses hold."""
    item = malicious("dns", host="a.example.com")
    reports = [report(item, id=f"t{n}", threatStatus=status) for n, status in enumerate(told)]
    return [one.status for one in list_indicators(findings(*reports).entries, withdrawn=withdrawn)]


def test_what_tap_took_back_is_listed_only_if_asked_for_and_an_active_report_wins() -> None:
    assert statuses("falsePositive") == statuses("cleared", "FalsePositive") == []
    assert statuses("falsePositive", "active", "cleared") == ["active"]
    assert statuses("cleared", None) == [""]
    assert statuses("falsePositive", withdrawn=True) == ["falsePositive"]
    assert statuses("falsePositive", "active", withdrawn=True) == ["active"]


def test_a_listed_indicator_names_only_reports_that_stand() -> None:
    item = malicious("dns", host="a.example.com")
    entries = findings(report(item), report(item, id="t2", threatStatus="cleared")).entries
    [one] = list_indicators(entries)
    [row] = csv.DictReader(io.StringIO(csv_text([one], entries)))
    assert (row["reports"], row["report_ids"], row["status"]) == ("1", "t1", "active")
    assert left_out(entries, [one]) == {}
    assert left_out(entries, []) == {"cleared": 1}


def test_an_indicator_taken_back_is_no_malicious_activity_in_stix() -> None:
    entries = findings(report(malicious("mutex", name="m"), threatStatus="falsePositive")).entries
    bundle = json.loads(stix_text(list_indicators(entries, withdrawn=True), entries, START))
    assert bundle["objects"][1]["indicator_types"] == ["benign"]


def test_an_indicator_of_several_reports_is_listed_once_with_all_of_them() -> None:
    item = malicious("dns", host="a.example.com")
    entries = findings(report(item, item), report(item, id="t2", generated="2026-03-01T00:00:00Z")).entries
    [one] = list_indicators(entries)
    assert len(one.entries) == 2
    assert one.first_seen is not None
    assert one.first_seen.isoformat() == "2026-03-01T00:00:00+00:00"


@given(
    st.lists(st.dictionaries(st.sampled_from(["path", "key", "name", "url", "host"]), st.text(max_size=9)))
)
def test_any_text_makes_sound_exports(whats: list[dict[str, str]]) -> None:
    kinds = ("registry", "mutex", "file")
    rows, bundle = exported(report(*(malicious(kinds[n % 3], **what) for n, what in enumerate(whats))))
    found = [o for o in stix2.parse(bundle).objects if o.type == "indicator"]
    assert len(found) == len(list(csv.reader(io.StringIO(rows)))) - 1
