"""Which RECORD_SHAPE the tenant's parser reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.cli.conftest import Site
from tests.integration.cli.secops.conftest import (
    FORENSICS,
    GENERATED,
    MAIL,
    THREAT,
    check,
    evidence,
    found,
    put,
)
from tests.support.secops_api import SecopsApi, events, parser, reads


@pytest.mark.parametrize("stored", ["report", "response"])
@pytest.mark.parametrize("wanted", ["report", "response"])
@pytest.mark.parametrize("current", ["report", "response"])
def test_the_shape_that_the_parser_reads_is_named(
    site: Site, api: SecopsApi, stored: str, wanted: str, current: str
) -> None:
    put(site, api, FORENSICS, "tap-forensics/tap_forensics", evidence(stored))
    api.run = reads(wanted)
    (shape,) = found(site, "record shape", RECORD_SHAPE=current)
    tried = dict(zip(("report", "response"), found(site, "parser"), strict=False))
    good, bad = tried.pop(wanted), *tried.values()
    assert good[0] == "ok"
    assert "1 event, 1 with the time of `generated`, 1 with indicators" in good[1]
    assert bad[0] == "warning"
    if wanted == current:
        assert shape == ("ok", f"RECORD_SHAPE={current} is right: only this shape gives all")
    else:
        assert shape[0] == "wrong"
        assert f"set RECORD_SHAPE={wanted};" in shape[1]


def test_two_shapes_that_give_the_same_change_nothing(site: Site, api: SecopsApi) -> None:
    api.run = lambda name, _: events(name, GENERATED, [{"ip": ["192.0.2.17"]}])
    for current in ("report", "response"):
        (shape,) = found(site, "record shape", RECORD_SHAPE=current)
        assert shape == ("ok", f"RECORD_SHAPE={current} is right: both shapes give the same events")


def test_the_parser_gets_both_shapes_as_the_function_writes_them(site: Site, api: SecopsApi) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def run(name: str, line: dict[str, Any]) -> dict[str, Any]:
        seen.append((name, line))
        return reads("report")(name, line)

    api.run = run
    check(site)
    shapes = [json.loads(evidence(shape)) for shape in ("report", "response")]
    assert [line for name, line in seen if name == FORENSICS] == shapes
    assert [line for name, line in seen if name == MAIL] == [json.loads(api.raw_logs[1][1])]


@pytest.mark.usefixtures("api")
def test_a_line_of_a_real_run_is_tried(site: Site) -> None:
    assert site.call("run", LOOKBACK_HOURS="24").exit_code == 0
    assert found(site, "record shape")[0][0] == "ok"
    assert [mark for mark, _ in found(site, "parser")] == ["ok", "warning", "ok"]


def test_events_without_time_or_indicators_are_not_good_enough(site: Site, api: SecopsApi) -> None:
    api.run = lambda name, _: events(name, "2026-11-26T23:00:00Z", [{"url": "https://a.example.com"}])
    ((mark, words),) = found(site, "record shape")
    assert mark == "warning"
    assert "lack the time of `generated`" in words
    api.run = lambda name, _: events(name, GENERATED, [{"application": "x"}])
    assert "lack indicators" in found(site, "record shape")[0][1]
    assert [mark for mark, _ in found(site, "parser")] == ["warning"] * 3
    api.run = lambda name, line: events(name, None, [{}] * ("reports" in line))
    ((mark, words),) = found(site, "record shape")
    assert mark == "wrong"
    assert "reads response better" in words
    assert "lack the time of `generated` and indicators" in words


def test_no_events_at_all(site: Site, api: SecopsApi) -> None:
    api.run = lambda name, _: events(name, GENERATED, [])
    ((mark, words),) = found(site, "record shape")
    assert mark == "wrong"
    assert "no event of either shape" in words
    assert "set EVENTS_SHAPE=api" in found(site, "parser", EVENTS_SHAPE="flat")[2][1]
    assert "ask Google's support" in found(site, "parser")[2][1]


def test_a_parsers_error_is_shown_without_the_evidence_that_it_quotes(site: Site, api: SecopsApi) -> None:
    def fails(_: str, line: dict[str, Any]) -> dict[str, Any]:
        message = f'filter json (3) failed: field "generated" of {THREAT}: https://shop.example.com/invoice'
        return {"error": {"code": 3, "message": f"\x1b[31m{message} LOG: {json.dumps(line)}"}}

    api.run = lambda name, line: (fails if name == FORENSICS else reads("report"))(name, line)
    output = check(site).output
    assert 'it fails: \\x1b[31mfilter json (3) failed: field "generated" of …' in output
    assert THREAT not in output.split("✓ arrival")[0]
    assert "invoice" not in output
    assert "LOG:" not in output
    assert "\x1b" not in output


def test_no_parser_and_a_parser_whose_code_is_not_shown(site: Site, api: SecopsApi) -> None:
    api.parsers[FORENSICS] = [parser(state="INACTIVE")]
    api.parsers[MAIL] = [parser(cbn=None)]
    no_parser, no_code = found(site, "parser")
    assert no_parser[0] == "wrong"
    assert "no parser is active" in no_parser[1]
    assert no_code[0] == "warning"
    assert "step 6 of deploy/README.md" in no_code[1]
    assert not found(site, "record shape")


def test_a_tenants_own_parser_and_its_extension_are_run(site: Site, api: SecopsApi) -> None:
    own = parser("filter { mine }", type="CUSTOM")
    api.parsers[FORENSICS] = [own, parser()]
    api.extensions = [
        {"state": "REJECTED", "cbnSnippet": "eA=="},
        {"state": "LIVE", "cbnSnippet": "bGl2ZQ=="},
    ]
    assert "your own parser with your extension" in found(site, "parser")[0][1]
    sent = [call.body for call in api.calls if call.path == f"logTypes/{FORENSICS}:runParser"]
    assert sent[0]["parser"]["cbn"] == own["cbn"]
    assert sent[0]["parser_extension"] == {"cbn_snippet": "bGl2ZQ=="}


@pytest.mark.parametrize(
    "results",
    [
        None,
        [],
        [{}, {}, {}],
        [
            {"parsedEvents": 3},
            {"parsedEvents": {"events": [None, {"event": 7}, {"event": {"metadata": []}}]}},
        ],
        [{"error": "text"}, {}],
        [{"errors": [None]}, {"errors": ["\x1b[2J"]}],
    ],
)
def test_odd_results_end_in_a_sentence(site: Site, api: SecopsApi, results: Any) -> None:
    body = json.dumps({"runParserResults": results}).encode()
    api.fails[f"logTypes/{FORENSICS}:runParser"] = (200, body)
    result = check(site)
    assert result.exit_code == 1
    assert "✗ parser" in result.stdout or "✗ record shape" in result.stdout
    assert "\x1b" not in result.output


@pytest.mark.usefixtures("api")
def test_lines_that_cannot_be_tried_are_passed_by(site: Site) -> None:
    """The newest object has only lines without evidence, too long ones, and what is no JSON."""
    empty = evidence("report").replace(b'"malicious":true', b"")
    empty = empty.replace(
        b'[{"type":"url",,"what":{"url":"https://shop.example.com/invoice","ip":"192.0.2.17"}}]', b"[]"
    )
    assert b'"forensics":[]' in empty
    long = b'{"_threatId":"%s","forensics":["%s"]}\n' % (THREAT.encode(), b"x" * 1_000_001)
    broken = b'{"_threatId":"%s",\n\xff\n' % THREAT.encode()
    (good,) = (name for name in site.bucket.objects("tap-forensics/") if "ndjson" in name)
    site.bucket.put("tap-forensics/tap_forensics_29991231_235959.ndjson", empty + long + broken)
    ((_, words),) = [one for one in found(site, "arrival") if FORENSICS in one[1]]
    assert good in words
