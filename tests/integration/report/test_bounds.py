"""However much a small file unpacks to, no command takes much memory for it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tap_forensics.report.source import LONGEST_LINE_BYTES
from tests.support.report.commands import command
from tests.support.tools import CHECKOUT

# Python with the libraries of `report` alone takes 70.
MOST_MEBIBYTES = 350
# The peak of a child's child, and of no other.
_MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sys.stderr)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(done.returncode, peak // (1024 if sys.platform == "linux" else 1024 * 1024))
"""


def measured(*words: object) -> tuple[int, int, str]:
    """Exit code, peak in MiB, and what was said on stderr."""
    completed = subprocess.run(  # noqa: S603 (this Python, with arguments of ours)
        [sys.executable, "-c", _MEASURED, *command(*words)],
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
    )
    code, peak = map(int, completed.stdout.split())
    return code, peak, completed.stderr


def swarm(head: str, items: int) -> bytes:
    return head.encode() + b",".join([b"{}"] * items) + b"]}\n"


def packed(folder: Path, *lines: bytes) -> Path:
    file = folder / "small.ndjson.gz"
    file.write_bytes(gzip.compress(b"".join(lines)))
    assert file.stat().st_size < 250_000
    return file


PART = '{"scope":"THREAT","id":"a","_part":%d,"_parts":3,"forensics":['
HEADS = ['{"reports":[', '{"messagesDelivered":[', PART]


@pytest.mark.parametrize("name", ["udm", "report"])
@pytest.mark.parametrize("head", HEADS)
def test_lines_of_too_many_values_are_named_and_passed_over(name: str, head: str, tmp_path: Path) -> None:
    items = (LONGEST_LINE_BYTES - 100) // 3
    heads = [head % number if "%" in head else head for number in (1, 2, 3)]
    file = packed(tmp_path, *(swarm(one, items) for one in heads))
    code, peak, output = measured(name, file, *(["-o", tmp_path / "r.html"] if name == "report" else []))
    assert (code, peak < MOST_MEBIBYTES) == (1, True), peak
    assert output.count("more than 500,000 values") == 3


@pytest.mark.parametrize("name", ["udm", "report"])
def test_the_parts_of_a_report_without_end_are_never_in_memory_together(name: str, tmp_path: Path) -> None:
    file = packed(tmp_path, *(swarm(PART % number, 150_000) for number in (1, 2, 3)))
    code, peak, _ = measured(name, file, *(["-o", tmp_path / "r.html"] if name == "report" else []))
    assert (code, peak < MOST_MEBIBYTES / 2) == (0, True), peak


def test_what_no_page_can_hold_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "many.ndjson"
    reports = (json.dumps({"scope": "THREAT", "id": str(number)}) for number in range(140_000))
    file.write_text("\n".join(reports))
    code, peak, output = measured("report", file, "-o", tmp_path / "r.html")
    assert (code, peak < MOST_MEBIBYTES) == (1, True), peak
    assert "more than fits on one page: give a part of it" in output
    assert output.count("\n") == 1
    assert not (tmp_path / "r.html").exists()
