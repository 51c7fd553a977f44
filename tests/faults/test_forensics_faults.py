"""Fan-out and delivery, row by row: what the published function loses, and every status of the API."""

from __future__ import annotations

import gzip
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tap_forensics.errors import CredentialsRefused, StateUnreadable, StorageFailed
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.world import World
from tests.faults.lab import FORENSICS, HANDOVER, SIEM, START, STATE, Lab, Ran, lab
from tests.faults.measured import run_measured

ONE = "1" * 64
OTHER = "2" * 64


def once_each(the: Lab) -> bool:
    return dict(the.delivered()) == dict.fromkeys(the.truth(), 1)


def world_of(*threat_ids: str, kind: str = "messagesDelivered") -> World:
    world = World.from_threats(0, now=START)
    for threat_id in threat_ids:
        world.add_event(kind, [threat_id], created=START - timedelta(minutes=20))
    return world


PASSING = [
    pytest.param(Fault("status", status=500, times=3), id="500"),
    pytest.param(Fault("status", status=503, times=3, headers={"Retry-After": "7"}), id="503 Retry-After"),
    pytest.param(Fault("reset", times=3), id="reset"),
    pytest.param(Fault("reset", times=3, after_bytes=300), id="reset in mid-body"),
    pytest.param(Fault("cut", times=3, after_bytes=100), id="cut"),
    pytest.param(Fault("body", times=3, body=b'{"generated":'), id="unparsable"),
    pytest.param(Fault("body", times=3, body=b'{"reports":{}}'), id="reports of a wrong type"),
    pytest.param(Fault("body", times=3, body=b"[" * 10_000), id="nested 10,000 deep"),
]


@pytest.mark.parametrize("fault", PASSING)
def test_a_threat_without_a_usable_answer_stays_on_the_backlog_with_its_count(fault: Fault) -> None:
    with lab(world_of(ONE)) as the:
        the.tap.faults.add(FORENSICS, fault, threat_id=ONE)
        first = the.run().good
        assert first.threats_left == 1
        assert first.outcome == "incomplete"
        assert the.state()["backlog"][ONE]["attempts"] == 1
        assert the.evidence() == {}
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)


def test_one_bad_answer_is_asked_for_again_in_the_same_run() -> None:
    with lab(world_of(ONE)) as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=2))
        assert the.run().good.outcome == "complete"
        assert once_each(the)


def test_a_threat_that_failed_for_seven_days_is_given_up_by_name_at_error() -> None:
    with lab(world_of(ONE)) as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=None))
        ran = the.run()
        for _ in range(8):
            assert not ran.says("Gave up", logging.ERROR)
            the.time.advance(hours=23)
            ran = the.run()
        assert ran.says(f"Gave up threat {ONE}, which failed for 7 days: TAP answered 503", logging.ERROR)
        assert "backlog" not in the.state()


def test_threats_that_fail_let_the_others_go_first() -> None:
    with lab(world_of(ONE), MAX_THREATS="1") as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=None), threat_id=ONE)
        the.run()
        the.world.add_event("messagesBlocked", [OTHER], created=START - timedelta(minutes=5))
        the.run()
        assert the.delivered()[OTHER] == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("status", status=404), id="404"),
        pytest.param(Fault("status", status=204, body=b""), id="204"),
        pytest.param(Fault("body", body=b'{"generated":"2026-03-04T10:00:00Z","reports":[]}'), id="empty"),
        pytest.param(Fault("body", body=b'{"reports":null}'), id="null"),
        pytest.param(Fault("body", body=b"{}"), id="absent"),
    ],
)
def test_what_has_no_evidence_is_skipped_counted_and_remembered(fault: Fault) -> None:
    with lab(world_of(ONE)) as the:
        the.tap.faults.add(FORENSICS, fault)
        ran = the.run()
        assert ran.good.threats_skipped == 1
        assert ran.says("No forensic evidence retrieved.")
        assert ran.good.outcome == "complete"
        the.time.advance(minutes=30)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == 1
        assert the.evidence() == {}


@pytest.mark.parametrize("status", [400, 402, 405, 410, 418, 301, 302, 307])
def test_an_unexpected_answer_is_skipped_remembered_and_told_harmlessly(status: int) -> None:
    body = b"bad\nid \x1b[31m\xe2\x80\xae demo-secret " + b"x" * 2000
    with lab(world_of(ONE)) as the:
        headers = {"Location": f"{the.tap.url}/v2/siem/all"}
        the.tap.faults.add(FORENSICS, Fault("status", status=status, body=body, headers=headers))
        ran = the.run()
        told = [line for line in ran.said(logging.WARNING) if line.startswith(f"Skipped threat {ONE}")]
        assert len(told) == 1
        assert told[0].endswith(f"TAP answered {status}: text (about 2 KiB), not shown")
        assert len(told[0]) < 700
        the.time.advance(minutes=30)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_fail_the_run_and_keep_what_was_fetched(status: int) -> None:
    with lab(FETCH_CONCURRENCY="1") as the:
        fifth = sorted(the.world.threats, key=lambda name: the.world.threats[name].number)[4]
        the.tap.faults.add(FORENSICS, Fault("status", status=status), threat_id=fifth)
        ran = the.run()
        assert isinstance(ran.failure, CredentialsRefused)
        assert "TAP_PRINCIPAL" in str(ran.failure)
        assert 0 < len(the.delivered()) < 10
        assert "lease" not in the.state()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)


def test_a_429_is_waited_for_by_all_and_nothing_is_skipped() -> None:
    with lab() as the:
        fault = Fault("status", status=429, headers={"Retry-After": "200"})
        the.tap.faults.add(FORENSICS, fault)
        before = the.time.now()
        ran = the.run()
        assert ran.said().count("Rate limited (429). Retrying after 200s...") == 1
        assert the.time.now() - before >= timedelta(seconds=200)
        assert ran.good.outcome == "complete"
        assert once_each(the)


def test_a_retry_after_as_a_date_is_obeyed() -> None:
    with lab(world_of(ONE)) as the:
        at = (the.time.now() + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        the.tap.faults.add(FORENSICS, Fault("status", status=429, headers={"Retry-After": at}))
        before = the.time.now()
        the.run()
        assert the.time.now() - before >= timedelta(seconds=95)
        assert once_each(the)


def test_nothing_but_429_ends_the_fan_out_cleanly_and_one_call_asks_again_an_hour_later() -> None:
    with lab() as the:
        the.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        first = the.run()
        assert first.good.outcome == "incomplete"
        assert first.good.threats_left == 10
        assert first.said().count("Rate limited (429). Retrying after 1s...") == 1
        assert first.said().count("Rate limited (429). Retrying after 16s...") == 1
        calls = len(the.tap.calls_to(FORENSICS))
        the.time.advance(minutes=15)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == calls
        the.time.advance(minutes=45)
        the.run()
        assert len(the.tap.calls_to(FORENSICS)) == calls + 1
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)
        assert "limited_at" not in the.state()["calls"]["forensics"]


def test_an_explicit_limit_overrides_what_429_taught() -> None:
    with lab() as the:
        the.tap.faults.add(FORENSICS, Fault("status", status=429, times=None))
        the.run()
        the.tap.faults.clear()
        the.time.advance(minutes=5)
        the.run(TAP_FORENSICS_DAILY_LIMIT="1800")
        assert once_each(the)


def test_the_configured_limit_is_kept_over_a_rolling_day_and_nothing_is_lost() -> None:
    with lab(TAP_FORENSICS_DAILY_LIMIT="4") as the:
        the.tap.quotas["forensics_threat"].limit = 4
        for _ in range(3):
            the.run()
            the.time.advance(hours=12)
            the.run()
            the.time.advance(hours=12, minutes=11)
        assert once_each(the)
        assert {call.status for call in the.tap.calls_to(FORENSICS)} == {200}


def test_over_the_threat_limit_the_rest_is_carried_over_by_priority_and_age() -> None:
    world = world_of()
    for kind, digit in (("clicksBlocked", "3"), ("messagesDelivered", "2"), ("clicksPermitted", "1")):
        for age in (150, 50):
            name = f"{digit}{age:03}" + "0" * 60
            world.add_event(kind, [name], created=START - timedelta(minutes=age))
    with lab(world, LOOKBACK_HOURS="3", MAX_THREATS="2", FETCH_CONCURRENCY="1") as the:
        ran = the.run()
        assert ran.says("Reached max threats limit (2)")
        the.run_until_done()
        order = [call.query["threatId"][:4] for call in the.tap.calls_to(FORENSICS)]
        assert order == ["1150", "1050", "2150", "2050", "3150", "3050"]
        assert once_each(the)


def see_again(the: Lab) -> None:
    for threat_id in the.world.threats:
        the.world.add_event("clicksBlocked", [threat_id], created=the.time.now() - timedelta(minutes=10))


def test_the_same_threat_in_the_next_hour_is_not_fetched_again_within_dedup_hours() -> None:
    with lab() as the:
        the.run()
        for _ in range(3):
            the.time.advance(hours=7)
            see_again(the)
            the.run()
        assert once_each(the)
        the.time.advance(hours=7)
        see_again(the)
        the.run()
        assert set(the.delivered().values()) == {2}


def test_with_dedup_off_a_threat_still_counts_once_within_a_run() -> None:
    with lab(DEDUP_HOURS="0") as the:
        the.run()
        assert once_each(the)
        the.time.advance(minutes=20)
        the.run()
        assert set(the.delivered().values()) == {2}


@pytest.mark.parametrize(("setting", "times"), [("once", 1), ("every", 12)])
def test_a_campaigns_report_is_written_once_a_run_unless_asked_otherwise(setting: str, times: int) -> None:
    world = World.from_threats(20, now=START, campaigns=1, report_bytes=500, campaign_report_bytes=900)
    with lab(world, CAMPAIGN_REPORTS=setting) as the:
        the.run()
        campaign = [line for line in the.lines() if line["scope"] == "CAMPAIGN"]
        assert len(campaign) == times
        assert {line["_campaignId"] for line in campaign} == set(world.campaigns)
        assert once_each(the)


def test_generated_and_provenance_are_on_every_line() -> None:
    with lab(World(4, start=START - timedelta(hours=1), end=START, evidences=2)) as the:
        the.run()
        lines = the.lines()
        assert lines
        for line in lines:
            assert datetime.fromisoformat(line["generated"])
            assert line["_threatId"] in the.world.threats
            # A campaign that TAP linked later is not in every answer yet.
            assert line.get("_campaignId") in (None, the.world.threats[line["_threatId"]].campaign)


def test_the_response_shape_wraps_the_report() -> None:
    with lab(RECORD_SHAPE="response") as the:
        the.run()
        for line in the.lines():
            assert list(line)[:2] == ["generated", "reports"]
            assert line["reports"][0]["id"] == line["_threatId"]


def test_a_report_too_long_for_the_feed_is_split_and_nothing_of_it_is_lost() -> None:
    world = World.from_threats(1, now=START, report_bytes=9_000_000)
    with lab(world) as the:
        the.run()
        raw = [line for data in the.evidence().values() for line in data.splitlines()]
        lines = the.lines()
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
    world.literal[ONE] = json.dumps({"generated": "2026-03-04T10:00:00Z", "reports": [report]}).encode()
    with lab(world) as the:
        ran = the.run()
        assert ran.says("an evidence of type file", logging.WARNING)
        evidence = [item for line in the.lines() for item in line["forensics"]]
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
    world.literal[ONE] = body
    with lab(world) as the:
        the.run().good  # noqa: B018 - raises where the run failed
        (data,) = the.evidence().values()
        assert data.endswith(b"\n")
        for line in data.decode().removesuffix("\n").split("\n"):
            assert json.loads(line)["_threatId"] == ONE
            line.encode()


def packed_report(size_bytes: int) -> bytes:
    """A report of this size as gzip: many small evidences, which are the hardest to split."""
    item = b'{"type":"url","what":{"url":"http://example.com/"}},'
    evidence = item * (size_bytes // len(item))
    return gzip.compress(literal('{"scope":"THREAT","id":"x","forensics":[%s{}]}') % evidence, 1)


def measured(the: Lab) -> tuple[dict[str, Any], int]:
    return run_measured({**the.env, "STORAGE_EMULATOR_HOST": the.bucket.url})


@pytest.mark.parametrize(
    ("size_bytes", "fetched"),
    [pytest.param(20_000_000, 12, id="twenty megabytes"), pytest.param(500_000_000, 8, id="gzip bomb")],
)
def test_giant_answers_fit_the_functions_memory_and_cost_the_others_nothing(
    size_bytes: int, fetched: int
) -> None:
    now = datetime.now(UTC)
    world = World.from_threats(12, now=now, report_bytes=500)
    with lab(world, now=now) as the:
        packed = packed_report(size_bytes)
        fault = Fault("body", body=packed, headers={"Content-Encoding": "gzip"}, times=None)
        for name in list(world.threats)[:4]:
            the.tap.faults.add(FORENSICS, fault, threat_id=name)
        figures, growth = measured(the)
        assert growth < 250 * 1024 * 1024
        assert figures["threats_fetched"] == fetched
        assert figures["threats_left"] == 12 - fetched


def test_memory_stays_bounded_where_much_more_is_written() -> None:
    now = datetime.now(UTC)
    world = World.from_threats(1200, now=now, report_bytes=150_000)
    with lab(world, now=now, MAX_THREATS="2000") as the:
        the.tap.pack_reports()
        figures, growth = measured(the)
        assert figures["lines_bytes"] > 150_000_000
        assert figures["objects"] > 30
        assert growth < 60 * 1024 * 1024


@pytest.mark.parametrize(
    "name", ["a&b=c", "a/b", "a\nb", "<b>", "a b+c%20", "ü\u202e", "..", "?x#y", "a" * 256]
)
def test_an_odd_id_is_asked_for_as_it_is_and_never_becomes_part_of_the_address(name: str) -> None:
    with lab(world_of(name)) as the:
        ran = the.run()
        (call,) = the.tap.calls_to(FORENSICS)
        assert call.query == {"threatId": name, "includeCampaignForensics": "true"}
        assert ran.good.outcome == "complete"
        assert not any("\n" in line for line in ran.said())


def test_at_most_fetch_concurrency_calls_are_in_flight_and_each_threat_costs_one() -> None:
    with lab(World.from_threats(40, now=START, report_bytes=500)) as the:
        the.tap.latency_seconds = 0.05
        the.run()
        calls = the.tap.calls_to(FORENSICS)
        assert len(calls) == 40
        assert max(call.in_flight for call in calls) == 8


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("delay", times=None, delay_seconds=0.6), id="slow"),
        pytest.param(Fault("hang", times=None), id="hang"),
        pytest.param(Fault("drip", times=None, delay_seconds=0.2, chunk_bytes=1), id="drip"),
        pytest.param(Fault("drip_headers", times=None, delay_seconds=0.2), id="drip of the head"),
    ],
)
def test_a_run_that_cannot_finish_stops_by_itself_and_the_next_goes_on(fault: Fault) -> None:
    with lab(World.from_threats(60, now=START, report_bytes=500), RUN_BUDGET_SECONDS="5") as the:
        the.tap.faults.add(FORENSICS, fault)
        began = time.monotonic()
        ran = the.run()
        assert time.monotonic() - began < 5
        assert ran.good.outcome == "incomplete"
        assert ran.good.threats_left > 0
        the.tap.faults.clear()
        the.run(RUN_BUDGET_SECONDS="480")
        assert once_each(the)


def test_an_endpoint_that_hangs_in_discovery_ends_the_run_in_time_too() -> None:
    with lab(RUN_BUDGET_SECONDS="5") as the:
        the.tap.faults.add(SIEM, Fault("hang", times=None))
        began = time.monotonic()
        ran = the.run()
        assert time.monotonic() - began < 5
        assert ran.good.outcome == "incomplete"
        the.tap.faults.clear()
        the.run()
        assert once_each(the)


def test_twenty_failures_in_a_row_end_the_fan_out_and_spare_the_calls() -> None:
    with lab(World.from_threats(100, now=START, report_bytes=500)) as the:
        the.tap.faults.add(FORENSICS, Fault("status", times=None))
        ran = the.run()
        assert ran.says("20 threats in a row", logging.WARNING)
        assert len(the.tap.calls_to(FORENSICS)) <= 3 * (20 + 8)
        the.tap.faults.clear()
        the.time.advance(hours=1)
        the.run()
        assert once_each(the)


UNREADABLE = [
    b"",
    b"not json",
    b"[]",
    b"{}",
    b'{"last_event_time":7}',
    b'{"last_event_time":null}',
    b'{"last_event_time":"yesterday"}',
    b'{"last_event_time":"2126-01-01T00:00:00Z"}',
    b'{"version":2,"last_event_time":"2026-03-04T09:00:00Z"}',
    b'{"version":1,"backlog":[]}',
    b'{"version":1,"last_run_id":"../../x"}',
    b'{"version":1,"collected":{"a":"b"}}',
    b"[" * 10_000,
]


@pytest.mark.parametrize("name", [STATE, HANDOVER])
@pytest.mark.parametrize("data", UNREADABLE)
def test_a_state_that_cannot_be_read_fails_the_run_names_the_object_and_touches_nothing(
    name: str, data: bytes
) -> None:
    with lab() as the:
        the.bucket.put(name, data)
        ran = the.run()
        assert isinstance(ran.failure, StateUnreadable)
        assert ran.says(f"gs://demo-bucket/{name}", logging.ERROR)
        assert ran.says("delete it to start from LOOKBACK_HOURS", logging.ERROR)
        assert the.bucket.objects() == {name: data}
        assert the.tap.calls == []


def test_a_state_that_cannot_be_written_fails_the_run_before_anything_is_asked() -> None:
    with lab(GCS_BUCKET="no-such-bucket") as the:
        ran = the.run()
        assert isinstance(ran.failure, StorageFailed)
        assert ran.says("check GCS_BUCKET", logging.ERROR)
        assert the.tap.calls == []


@pytest.mark.parametrize(
    "text", ["2026-03-04T09:15:00+00:00", "2026-03-04T09:15:00Z", "2026-03-04T09:15:00.5"]
)
def test_the_published_functions_state_is_taken_over_and_brought_up_to_date(text: str) -> None:
    with lab() as the:
        the.bucket.put(HANDOVER, json.dumps({"last_event_time": text}))
        ran = the.run()
        assert ran.says("Fetching threats from 2026-03-04T08:15:00Z to 2026-03-04T09:59:0")
        kept = json.loads(the.bucket.get(HANDOVER))
        assert list(kept) == ["last_event_time"]
        assert datetime.fromisoformat(kept["last_event_time"]) == datetime.fromisoformat(
            the.state()["last_event_time"]
        )


def test_a_state_key_outside_the_prefix_is_the_one_state_object_and_the_guides_code_can_read_it() -> None:
    with lab(STATE_KEY="elsewhere/state.json") as the:
        the.run()
        names = [name for name in the.bucket.objects() if not name.endswith(".ndjson")]
        assert names == ["elsewhere/state.json"]
        assert json.loads(the.bucket.get("elsewhere/state.json"))["last_event_time"].endswith("Z")


def test_with_an_empty_prefix_a_warning_says_that_the_feed_sees_the_state() -> None:
    with lab(GCS_PREFIX="") as the:
        ran = the.run()
        assert ran.says("GCS_PREFIX is empty", logging.WARNING)
        assert sorted(the.bucket.objects())[0] == "state.json"
        assert sorted(the.bucket.objects())[1].startswith("tap_forensics_")


def test_nothing_is_written_under_the_feeds_prefix_but_evidence_and_the_handover() -> None:
    with lab() as the:
        the.run()
        under = [name for name in the.bucket.objects() if name.startswith("tap-forensics/")]
        assert [name for name in under if not name.endswith(".ndjson")] == [HANDOVER]


def test_an_object_of_the_same_name_is_never_replaced() -> None:
    with lab() as the:
        taken: list[str] = []
        for seconds in range(5):
            moment = the.time.now() + timedelta(seconds=seconds)
            taken.append(f"tap-forensics/tap_forensics_{moment:%Y%m%d_%H%M%S}.ndjson")
            the.bucket.put(taken[-1], b'{"_threatId":"someone else\'s"}\n')
        the.run()
        assert all(the.bucket.get(name) == b'{"_threatId":"someone else\'s"}\n' for name in taken)
        assert once_each(the)
        assert any(name.endswith("_0002.ndjson") for name in the.evidence())


def test_an_idle_run_writes_no_evidence_object_and_two_runs_share_no_name() -> None:
    with lab() as the:
        names: set[str] = set()
        for _ in range(3):
            the.world.add_event(
                "clicksBlocked", [f"{len(names):064x}"], created=the.time.now() - timedelta(minutes=5)
            )
            the.run()
            before, names = names, set(the.evidence())
            assert len(names) == len(before) + 1
            the.run()
            assert set(the.evidence()) == names


def test_the_final_line_has_all_figures_of_the_run() -> None:
    with lab() as the:
        ran = the.run()
        last = ran.records[-1]
        figures: dict[str, Any] = last.__dict__["fields"]["run"]
        assert last.getMessage() == "Run complete"
        assert figures["threats_found"] == figures["threats_fetched"] == figures["forensics_calls"] == 10
        assert figures["lines_bytes"] == sum(map(len, the.evidence().values()))
        assert figures["objects"] == len(the.evidence())
        assert figures["siem_calls"] == len(the.tap.calls_to(SIEM)) == figures["windows"]
        assert 60 <= figures["cursor_lag_seconds"] < 70


def test_saved_state_is_said_once_and_after_everything_else_is_written() -> None:
    with lab() as the:
        said = the.run().said()
        (at,) = [n for n, line in enumerate(said) if line.startswith("Saved state: last_event_time=")]
        assert all(n < at for n, line in enumerate(said) if line.startswith("Wrote "))


def test_a_live_lease_ends_the_second_run_well_and_untouched() -> None:
    with lab() as the:
        lease = {
            "run_id": "20260304_095900",
            "owner": "another",
            "until": (START + timedelta(minutes=2)).isoformat(),
            "started": START.isoformat(),
        }
        the.bucket.put(STATE, json.dumps({"version": 1, "lease": lease}))
        before = the.bucket.objects()
        ran: Ran = the.run()
        assert ran.good.outcome == "busy"
        assert len([line for line in ran.said() if "holds the lease" in line]) == 1
        assert ran.said(logging.WARNING) == []
        assert the.bucket.objects() == before
        assert the.tap.calls == []
        the.time.advance(minutes=3)
        after = the.run()
        assert after.says("Taking over run 20260304_095900", logging.WARNING)
        assert once_each(the)
        assert all("20260304_095900" in name for name in the.evidence())
