"""However much a small file unpacks to, no command takes much memory for it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tap_forensics.report.source import LONGEST_LINE_BYTES
from tests.support.peak import measured

# Python with the libraries of `report` alone takes 70.
MOST_MEBIBYTES = 350


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
    result = measured(name, file, *(["-o", tmp_path / "r.html"] if name == "report" else []))
    assert (result.code, result.peak_mebibytes < MOST_MEBIBYTES) == (1, True), result.peak_mebibytes
    assert result.stderr.count("more than 500,000 values") == 3


@pytest.mark.parametrize("name", ["udm", "report"])
def test_the_parts_of_a_report_without_end_are_never_in_memory_together(name: str, tmp_path: Path) -> None:
    file = packed(tmp_path, *(swarm(PART % number, 150_000) for number in (1, 2, 3)))
    result = measured(name, file, *(["-o", tmp_path / "r.html"] if name == "report" else []))
    assert (result.code, result.peak_mebibytes < MOST_MEBIBYTES / 2) == (0, True), result.peak_mebibytes


def test_what_no_page_can_hold_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "many.ndjson"
    reports = (json.dumps({"scope": "THREAT", "id": str(number)}) for number in range(140_000))
    file.write_text("\n".join(reports))
    result = measured("report", file, "-o", tmp_path / "r.html")
    assert (result.code, result.peak_mebibytes < MOST_MEBIBYTES) == (1, True), result.peak_mebibytes
    assert "more than fits on one page: give a part of it" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "r.html").exists()
