"""What the report says, and its exports; how it looks and holds is for test_page_in_chromium."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stix2
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_forensics.report.page.exports import list_indicators
from tap_forensics.report.page.findings import find
from tap_forensics.report.page.overview import charts
from tap_forensics.report.page.render import Exports, Origin, render_page
from tap_forensics.report.page.shown import defanged, shown_indicator, shown_value, visible
from tap_forensics.report.records import Tally, read_records
from tap_forensics.report.source import Line
from tests.support.lab import START
from tests.support.report import hostile
from tests.support.report.commands import run
from tests.support.report.made import findings, malicious, report
from tests.support.tools import CHECKOUT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://evil.example.com/a.b", "hxxps://evil[.]example[.]com/a.b"),
        ("HTTP://a.b@evil.example.com:80/", "HXXP://a[.]b@evil[.]example[.]com:80/"),
        ("ftp://a.example.com", "fxp://a[.]example[.]com"),
        ("see //a.example.com/b.c", "see //a[.]example[.]com/b.c"),
        ("see https://a.example.com/x and http://b.example.com",
         "see hxxps://a[.]example[.]com/x and hxxp://b[.]example[.]com"),
        ("host.example.com/path.html", "host[.]example[.]com/path.html"),
        ("user@mail.example.com", "user@mail[.]example[.]com"),
        ("javascript:alert(1)", "javascript[:]alert(1)"),
        (r"C:\Users\demo\a.exe", r"C:\Users\demo\a.exe"),
        ("198.51.100.1:8080/a.b", "198[.]51[.]100[.]1:8080/a.b"),
        ("10.0", "10.0"),
        ("invoice.html", "invoice.html"),
        ("Invoice.2026.JS", "Invoice.2026.JS"),
        ("a.pdf.exe: dropped", "a.pdf.exe: dropped"),
        ("html.example.com", "html[.]example[.]com"),
        ("invoice.html.example.com/a.js", "invoice[.]html[.]example[.]com/a.js"),
        ("plain words. And more", "plain words. And more"),
    ],
)  # fmt: skip
def test_urls_are_shown_defanged_wherever_they_stand(text: str, shown: str) -> None:
    assert defanged(text) == shown


def test_addresses_and_domains_are_defanged_by_the_field_they_stand_in() -> None:
    assert shown_value("ips", ["198.51.100.1", "2001:db8::1"]) == "198[.]51[.]100[.]1, 2001[:]db8[:][:]1"
    assert shown_value("domain", "a.example.com") == "a[.]example[.]com"
    assert shown_value("url", "a.example.com/b.c") == "a[.]example[.]com/b.c"


def test_names_of_files_and_keys_are_not_defanged_but_urls_in_them_are() -> None:
    for name in ("setup.com", "invoice.zip", "run.sh", r"C:\Temp\a.js"):
        assert shown_value("path", name) == shown_indicator("path", name) == name
    assert shown_indicator("mutex", "m.example.com") == "m.example.com"
    assert shown_value("path", "https://a.example.com/b.js") == "hxxps://a[.]example[.]com/b.js"
    assert shown_value("path", "a.example.com/b.js") == "a[.]example[.]com/b.js"
    assert shown_value("name", "a.example.com") == "a[.]example[.]com"


def test_no_character_is_invisible_and_no_text_without_end() -> None:
    assert visible("a\u202eb\x00\n") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+000A⟩"
    assert shown_value("note", "x" * 2100) == "x" * 2000 + "… (100 more)"
    assert shown_value("ips", ["10.0.0.1"] * 102).endswith("10[.]0[.]0[.]1, … (2 more)")
    assert shown_value("depth", {"levels": [None] * 9000}).endswith("more)")


TEXTS = st.text(max_size=9) | st.sampled_from(hostile.TRICKS)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("type", "malicious", "what", "engine", "platforms", "note", "time")


@settings(max_examples=40)
@given(st.lists(ODD | st.dictionaries(st.sampled_from(FIELDS), ODD), max_size=5), ODD, ODD)
def test_whatever_the_evidence_is_a_page_comes_of_it(items: list[Any], name: Any, generated: Any) -> None:
    document = json.dumps(report(*items, name=name, threatStatus=name, generated=generated))
    event = json.dumps({"clicksBlocked": [{"threatID": "t1", "clickTime": generated, "campaignId": name}]})
    made = find(
        read_records([Line("x:1", document.encode()), Line("x:2", event.encode())], Tally()),
        malicious_only=False,
    )
    indicators = list_indicators(made.entries)
    page = render_page(Origin("x", START, Tally()), made, indicators, Exports("", ""))
    assert len(page_data(page)["reports"][0]["rows"]) == len(items)
    assert page.count("<script") == 2


def test_malicious_evidence_comes_first_and_the_newest_report_wins() -> None:
    other = {"type": "ids", "malicious": False, "what": {"name": "r"}}
    old = report(other, name="old")
    new = report(other, malicious("mutex", name="m"), name="new", generated="2026-03-05T00:00:00Z")
    made = findings(new, old, report(other, id="t2"))
    assert [(entry.report_id, entry.name) for entry in made.entries] == [("t1", "new"), ("t2", "n")]
    assert [row.kind for row in made.entries[0].rows] == ["mutex", "ids"]
    assert made.older == 1


def test_malicious_only_leaves_out_the_rest_and_still_counts_it() -> None:
    items = [malicious("mutex", name="m"), {"type": "ids", "what": {}}]
    [entry] = findings(report(*items), malicious_only=True).entries
    assert ([row.kind for row in entry.rows], entry.kinds.total()) == (["mutex"], 2)


def test_a_split_report_is_one_entry_with_all_of_its_evidence() -> None:
    other = {"type": "ids", "malicious": False, "what": {"name": "r"}}
    parts = [[other] * 400, [malicious("mutex", name="m1")] * 90, [malicious("mutex", name="m2")] * 90]
    lines = [report(*items, _part=number, _parts=3) for number, items in enumerate(parts, 1)]
    made = findings(report(id="t0"), *lines, report(id="t2"))
    assert len(made.entries) == 3
    entry = next(entry for entry in made.entries if entry.report_id == "t1")
    assert [row.kind for row in entry.rows] == ["mutex"] * 180 + ["ids"] * 320
    assert entry.kinds == {("ids", False): 400, ("mutex", True): 180}
    assert [one.value for one in entry.indicators] == ["m1"] * 90 + ["m2"] * 90
    assert made.older == 0


def test_a_part_of_an_older_report_is_not_added_to_the_newer_one() -> None:
    other = {"type": "ids", "what": {"name": "r"}}
    new = report(other, generated="2026-03-05T00:00:00Z")
    made = findings(
        new, report(other, _part=1, _parts=2), report(malicious("mutex", name="m"), _part=2, _parts=2)
    )
    [entry] = made.entries
    assert (entry.malicious, made.older) == (0, 1)


def test_events_tell_clicks_campaign_and_a_newer_status() -> None:
    threat = {"threatID": "t1", "campaignId": "c1", "classification": "phish", "threatStatus": "cleared"}
    mail = {"messageTime": "2026-03-04T09:00:00Z", "threatsInfoMap": [threat]}
    made = findings(
        {"messagesDelivered": [mail]},
        {"clicksPermitted": [threat | {"clickTime": "2026-03-04T09:30:00Z"}]},
        {"messagesDelivered": [mail | {"_update": True}]},
        report(),
        report(scope="CAMPAIGN", id="c1", name="Wave", threatStatus=None),
    )
    entry = next(entry for entry in made.entries if not entry.is_campaign)
    assert dict(entry.seen) == {"messagesDelivered": 1, "clicksPermitted": 1}
    assert (entry.campaign_id, entry.classification, entry.status) == ("c1", "phish", "cleared")
    assert made.campaigns == {"c1": "Wave"}
    assert len(made.moments) == 2


def test_one_date_far_away_does_not_stretch_the_timeline() -> None:
    reports = [report(id=f"t{n}", generated=f"2026-03-04T{n:02}:00:00Z") for n in range(10)]
    timeline = charts(findings(*reports, report(id="x", generated="9999-12-31T00:00:00Z")))[0]
    assert sum(timeline.bars.series["reports"]) == 10
    assert len(timeline.bars.labels) <= 48
    assert "1 of other times left out" in timeline.note


def page_data(page: str) -> Any:
    block = page.split('<script type="application/json" id="data">')[1].split("</script>", maxsplit=1)[0]
    return json.loads(block)


def test_the_page_and_the_files_beside_it_hold_the_same_exports(folder: Path, tmp_path: Path) -> None:
    page, rows, bundle = (tmp_path / name for name in ("r.html", "r.csv", "r.json"))
    completed = run("report", folder, "-o", page, "--csv", rows, "--stix", bundle, "--json")
    assert (completed.returncode, completed.stderr) == (0, b"")
    result = json.loads(completed.stdout)
    assert result["written"] == {str(path): path.stat().st_size for path in (page, rows, bundle)}
    data = page_data(page.read_text(encoding="utf-8"))
    assert data["csv"].encode() == rows.read_bytes()
    assert data["stix"] == bundle.read_text(encoding="utf-8")
    assert result["indicators"] == len(data["indicators"]) == len(stix2.parse(data["stix"]).objects) - 1 > 10


def test_indicators_of_reports_taken_back_are_counted_and_not_listed(tmp_path: Path) -> None:
    lines = [
        report(malicious("dns", host="a.example.com"), id="t1"),
        report(malicious("dns", host="b.example.com"), id="t2", threatStatus="falsePositive"),
        report(malicious("dns", host="c.example.com"), id="t3", threatStatus="cleared"),
    ]
    stdin = b"\n".join(json.dumps(line).encode() for line in lines)
    page, rows, bundle = (tmp_path / name for name in ("r.html", "r.csv", "r.json"))
    words = ("report", "-", "-o", page, "--csv", rows, "--stix", bundle)
    completed = run(*words, stdin=stdin)
    assert (
        b"Left out, because TAP withdrew their reports: 1 cleared, 1 falsePositive indicators"
        in completed.stderr
    )
    text = page.read_text(encoding="utf-8")
    assert "1 <bdi>cleared</bdi>, 1 <bdi>falsePositive</bdi>" in text
    assert [one[1] for one in page_data(text)["indicators"]] == ["a.example.com"]
    exported = rows.read_text(encoding="utf-8") + bundle.read_text(encoding="utf-8")
    assert "a.example.com" in exported
    assert not {"b.example.com", "c.example.com"} & set(re.findall(r"\w\.example\.com", exported))
    result = json.loads(run(*words, "--withdrawn", "--json", stdin=stdin).stdout)
    assert (result["indicators"], result["left_out"]) == (3, {})


def test_every_threat_of_the_bucket_is_on_the_page(folder: Path, tmp_path: Path, collected: Any) -> None:
    run("report", folder, "-o", tmp_path / "r.html")
    data = page_data((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert {one["id"] for one in data["reports"] if not one["is_campaign"]} == collected.truth()
    assert all(one["campaign"] in data["campaigns"] for one in data["reports"] if one["campaign"])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("report", "-", "-o", "/no/such/folder/x.html"), 1, "could not write"),
        (("report", "-", "-o", "{tmp}/x.html", "--bad"), 2, "No such option"),
        (("report", "-"), 2, "Missing option"),
        (("report", "-", "-o", "{tmp}/x", "--csv", "{tmp}/x"), 2, "different names"),
    ],
)
def test_a_users_mistake_is_one_sentence(
    words: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    line = json.dumps(report()).encode()
    completed = run(*(word.replace("{tmp}", str(tmp_path)) for word in words), stdin=line)
    assert completed.returncode == code
    assert told in completed.stderr.decode()
    assert "Traceback" not in completed.stderr.decode()


def test_a_source_without_reports_writes_nothing_and_says_what_was_there(tmp_path: Path) -> None:
    completed = run("report", "-", "-o", tmp_path / "r.html", stdin=b'odd\n{"clicksBlocked":[{}]}\n')
    assert completed.returncode == 1
    assert (
        "no report in SOURCE (2 lines, 1 events, 1 invalid)\n  stdin:1: not valid JSON"
        in completed.stderr.decode()
    )
    assert not (tmp_path / "r.html").exists()


def test_without_its_extra_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pygal'] = None; from tap_forensics.cli.report import report; "
        "report(['-', '-o', 'x.html'])"
    )
    completed = subprocess.run(  # noqa: S603 (this Python, with code of ours)
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=CHECKOUT, input=""
    )
    assert completed.returncode == 2
    assert "`report` needs pygal: from a checkout, pip install '.[cli,report]'" in completed.stderr
