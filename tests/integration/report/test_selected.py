"""--since, --until and --tenant of `report` and `udm`, and their progress on a terminal."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tap_forensics.clock import iso
from tests.support.lab import START, Lab
from tests.support.report.commands import run
from tests.support.report.made import malicious, report
from tests.support.terminals import terminal

HOUR = timedelta(hours=1)


def test_since_and_until_select_reports_by_when_tap_made_them(tmp_path: Path) -> None:
    item = malicious("url", url="https://host.example.com/a")
    documents = [report(item, id=f"t{day}", generated=f"2026-03-0{day}T10:00:00Z") for day in (1, 2, 3)]
    documents.append(report(item, id="undated", generated=None))
    source = tmp_path / "lines.ndjson"
    source.write_text("".join(json.dumps(document) + "\n" for document in documents))
    span = ("--since", "2026-03-02", "--until", "2026-03-03")
    done = run("report", source, "-o", tmp_path / "page.html", *span, "--json")
    result = json.loads(done.stdout)
    assert (result["reports"], result["without_time"]) == (1, 1)
    said = run("report", source, "-o", tmp_path / "page.html", *span).stderr.decode()
    assert said == "1 records have no valid time: --since and --until leave them out.\n"
    events = [json.loads(line) for line in run("udm", source, *span).stdout.splitlines()]
    assert [event["security_result"][0]["threat_id"] for event in events] == ["t2"]
    nothing = run("report", source, "-o", tmp_path / "page.html", "--since", "2026-03-09")
    assert nothing.returncode == 1
    assert b"1 without a time" in nothing.stderr


def test_events_are_selected_by_their_own_time(folder: Path, tmp_path: Path) -> None:
    counts = []
    for span in ((), ("--until", iso(START - HOUR)), ("--since", iso(START - HOUR))):
        # Reports, which TAP makes at the end of this world, come from elsewhere.
        (tmp_path / "one.ndjson").write_text(json.dumps(report(generated="2026-03-04T09:30:00Z")) + "\n")
        shutil.copytree(folder / "tap-siem", tmp_path / "tap-siem", dirs_exist_ok=True)
        (tmp_path / "two.ndjson").write_text(
            json.dumps(report(generated="2026-03-04T08:30:00Z", id="b")) + "\n"
        )
        done = run("report", tmp_path, "-o", tmp_path / "page.html", "--json", *span)
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        counts.append((json.loads(done.stdout)["reports"], "Events over time" in page))
    assert counts == [(2, True), (1, True), (1, True)]


def test_a_tenant_is_a_folder_of_the_source(collected: Lab, tmp_path: Path) -> None:
    item = malicious("url", url="https://host.example.com/a")
    for name in ("acme", "globex"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lines.ndjson").write_text(json.dumps(report(item, id=name)) + "\n")
    events = [json.loads(line) for line in run("udm", tmp_path, "--tenant", "acme").stdout.splitlines()]
    assert [event["security_result"][0]["threat_id"] for event in events] == ["acme"]
    assert run("udm", tmp_path, "--tenant", "initech").returncode == 1
    assert run("udm", "-", "--tenant", "acme").returncode == 2
    bucket = f"gs://{collected.bucket.name}/"
    env = {"STORAGE_EMULATOR_HOST": collected.bucket.url}
    assert run("udm", bucket, "--tenant", "tap-forensics", env=env).returncode == 0
    assert run("udm", bucket, "--tenant", "acme", env=env).returncode == 1


@pytest.mark.parametrize("name", ["udm", "report"])
def test_a_terminal_sees_how_far_the_reading_is_and_a_file_does_not(
    name: str, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    command = [name, str(folder), *(["-o", str(page)] if name == "report" else [])]
    quiet = run(*command).stderr
    assert b"lines read" not in quiet
    assert b"\x1b" not in quiet
    # Results to a file, progress to the terminal.
    env = {"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "120"}
    code = (
        "import sys; sys.stdout = open(sys.argv.pop(1), 'w')\nfrom tap_forensics.__main__ import main; main()"
    )
    with terminal(["-c", code, str(tmp_path / "out"), *command], env) as opened, suppress(OSError):
        opened.read_until("\0 never")
    assert any(words in opened.shown for words in ("lines read; reading", "Making the page of 30 reports"))
    assert "\x1b[?25h" in opened.shown, "the cursor is shown again"
