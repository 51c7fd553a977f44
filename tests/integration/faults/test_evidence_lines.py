"""Lines: their shape, their length and what they cost, whatever the API sent."""

from __future__ import annotations

import gzip
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.integration.faults.test_forensics_faults import ONE, once_each, world_of
from tests.support.lab import FORENSICS, START, Lab, open_lab
from tests.support.measured import run_measured


@pytest.mark.parametrize(("setting", "times"), [("once", 1), ("every", 12)])
def test_a_campaigns_report_is_written_once_a_run_unless_asked_otherwise(setting: str, times: int) -> None:
    world = World.from_threats(20, now=START, campaigns=1, report_bytes=500, campaign_report_bytes=900)
    with open_lab(world, CAMPAIGN_REPORTS=setting) as lab:
        lab.run()
        campaign = [line for line in lab.lines() if line["scope"] == "CAMPAIGN"]
        assert len(campaign) == times
        assert {line["_campaignId"] for line in campaign} == set(world.campaigns)
        assert once_each(lab)


def test_generated_and_provenance_are_on_every_line() -> None:
    with open_lab(World(4, start=START - timedelta(hours=1), end=START, evidences=2)) as lab:
        lab.run()
        lines = lab.lines()
        assert lines
        for line in lines:
            assert datetime.fromisoformat(line["generated"])
            assert line["_threatId"] in lab.world.threats
            # A campaign that TAP linked later is not in every answer yet.
            assert line.get("_campaignId") in (None, lab.world.threats[line["_threatId"]].campaign)


def test_the_response_shape_wraps_the_report() -> None:
    with open_lab(RECORD_SHAPE="response") as lab:
        lab.run()
        for line in lab.lines():
            assert list(line)[:2] == ["generated", "reports"]
            assert line["reports"][0]["id"] == line["_threatId"]


def test_a_report_too_long_for_the_feed_is_split_and_nothing_of_it_is_lost() -> None:
    world = World.from_threats(1, now=START, report_bytes=9_000_000)
    with open_lab(world) as lab:
        lab.run()
        raw = [line for data in lab.evidence().values() for line in data.splitlines()]
        lines = lab.lines()
        assert max(map(len, raw)) <= 3_500_000
        assert [line["_part"] for line in lines] == list(range(1, lines[0]["_parts"] + 1))
        whole = world.forensics(lines[0]["_threatId"])
        assert whole is not None
        assert [item for line in lines for item in line["forensics"]] == whole["reports"][0]["forensics"]


def test_an_evidence_too_large_for_a_line_becomes_its_type_display_and_size() -> None:
    huge = {"type": "file", "display": "d" * 5000, "what": {"path": "p" * 5_000_000}}
    small = {"type": "url", "what": {"url": "http://example.com"}}
    world = world_of(ONE)
    report = {"scope": "THREAT", "id": ONE, "forensics": [small, huge, small]}
    world.overrides[ONE] = json.dumps({"generated": "2026-03-04T10:00:00Z", "reports": [report]}).encode()
    with open_lab(world) as lab:
        result = lab.run()
        assert result.has_message("an evidence item of type file", logging.WARNING)
        evidence = [item for line in lab.lines() for item in line["forensics"]]
        size = len(json.dumps(huge, separators=(",", ":")))
        assert evidence == [small, {"type": "file", "display": "d" * 1000, "_bytes": size}, small]


def literal(reports: str) -> bytes:
    return f'{{"generated":"2026-03-04T10:00:00Z","reports":[{reports}]}}'.encode()


HOSTILE = [
    pytest.param(b"\xef\xbb\xbf" + literal('{"id":"x","forensics":[]}'), id="BOM"),
    pytest.param(literal('{"id":"a\\u0000b","forensics":[1e999]}'), id="NUL and 1e999"),
    pytest.param(literal('{"id":"\\ud800","name":"\\ud83d\\ude00 \\udc00\\udc00"}'), id="lone surrogates"),
    pytest.param(literal('{"id":"a","id":"b","_threatId":"other"}'), id="duplicate keys and ours"),
    pytest.param(literal('{"id":"x","name":"\xff"}').replace(b"\xc3\xbf", b"\xff\xfe"), id="not UTF-8"),
    pytest.param(literal('null, 7, "text", {"id":"x"}, []'), id="reports that are none"),
    pytest.param(literal('{\n"id":\r\n"x\\n",\t"forensics": {"not": "a list"}}'), id="line ends and tabs"),
    pytest.param(literal('{"id":"x","name":"</script><b>\\u2028\\u202e"}'), id="markup and bidi"),
]


@pytest.mark.parametrize("body", HOSTILE)
def test_every_line_is_valid_json_whatever_the_api_sent(body: bytes) -> None:
    world = world_of(ONE)
    world.overrides[ONE] = body
    with open_lab(world) as lab:
        lab.run().stats  # noqa: B018 - raises where the run failed
        (data,) = lab.evidence().values()
        assert data.endswith(b"\n")
        for line in data.decode().removesuffix("\n").split("\n"):
            assert json.loads(line)["_threatId"] == ONE
            line.encode()


def packed_report(size_bytes: int) -> bytes:
    """A report of this size as gzip: many small evidences, which are the hardest to split."""
    item = b'{"type":"url","what":{"url":"http://example.com/"}},'
    evidence = item * (size_bytes // len(item))
    return gzip.compress(literal('{"scope":"THREAT","id":"x","forensics":[%s{}]}') % evidence, 1)


def measured(lab: Lab) -> tuple[dict[str, Any], int]:
    return run_measured({**lab.env, "STORAGE_EMULATOR_HOST": lab.bucket.url})


@pytest.mark.parametrize(
    ("size_bytes", "fetched"),
    [pytest.param(20_000_000, 12, id="twenty megabytes"), pytest.param(500_000_000, 8, id="gzip bomb")],
)
def test_giant_answers_fit_the_functions_memory_and_cost_the_others_nothing(
    size_bytes: int, fetched: int
) -> None:
    now = datetime.now(UTC)
    world = World.from_threats(12, now=now, report_bytes=500)
    with open_lab(world, now=now) as lab:
        packed = packed_report(size_bytes)
        fault = Fault("body", body=packed, headers={"Content-Encoding": "gzip"}, times=None)
        for name in list(world.threats)[:4]:
            lab.tap.faults.add(FORENSICS, fault, threat_id=name)
        stats, growth = measured(lab)
        assert growth < 250 * 1024 * 1024
        assert stats["threats_fetched"] == fetched
        assert stats["threats_left"] == 12 - fetched


def test_memory_stays_bounded_where_much_more_is_written() -> None:
    now = datetime.now(UTC)
    world = World.from_threats(1200, now=now, report_bytes=150_000)
    with open_lab(world, now=now, MAX_THREATS="2000") as lab:
        lab.tap.pack_reports()
        stats, growth = measured(lab)
        assert stats["lines_bytes"] > 150_000_000
        assert stats["objects"] > 30
        assert growth < 60 * 1024 * 1024
