from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from tap_forensics.context import RunContext
from tap_forensics.forensics.evidence_writer import EvidenceWriter, record_object, recover_objects
from tap_forensics.forensics.responses import FetchedReports
from tap_forensics.records.ndjson import LONGEST_LINE_BYTES
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.stats import RunStats
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.numbered_objects import object_name
from tap_forensics.storage.state import VERSION, Lease, OpenItem, State, encode
from tap_forensics.storage.state_store import StateStore
from tap_forensics.workers import Request
from tests.support.clocks import NOW, MovableClock
from tests.support.lab_bucket import LabBucket
from tests.support.logs import LogCollector
from tests.support.settings import STATE, make_settings
from tests.support.states import Hold, acquired

PREFIX, RUN = "tap-forensics", "20260304_090000"
FIRST, SECOND, THIRD = (f"{PREFIX}/tap_forensics_{RUN}{number}.ndjson" for number in ("", "_0002", "_0003"))
Make = Callable[..., EvidenceWriter]
Run = Callable[..., RunContext]


@pytest.fixture
def fake(lab: LabBucket) -> FakeBucket:
    return lab


@pytest.fixture
def store(fake: FakeBucket, hold: Hold, clock: MovableClock) -> StateStore:
    """A run that has taken over another, of which the state knows no batch."""
    dead = Lease(RUN, "dead", NOW - timedelta(hours=2), seconds=60)
    fake.put(STATE, encode(State(VERSION, lease=dead)))
    clock.advance(60)
    return acquired(hold())


@pytest.fixture
def stats() -> RunStats:
    return RunStats()


@pytest.fixture
def log() -> LogCollector:
    return LogCollector()


@pytest.fixture
def run(store: StateStore, bucket: Bucket, log: LogCollector, stats: RunStats) -> Run:
    def run(**variables: str) -> RunContext:
        return RunContext(make_settings(**variables), log.logger, stats, store, bucket, lambda *_: None)

    return run


@pytest.fixture
def delivery(run: Run) -> Make:
    return lambda **variables: EvidenceWriter(run(**variables))


def fetched(
    threat_id: str, *reports: object, campaign: str | None = None, linked: str | None = None
) -> FetchedReports:
    """As if the threat was requested, or its campaign instead of it."""
    raws = [msgspec.Raw(r if isinstance(r, bytes) else json.dumps(r).encode()) for r in reports]
    request = Request(threat_id, OpenItem(), campaign, linked or campaign)
    return FetchedReports(request, lambda: None, msgspec.Raw(b'"2026-03-04T08:00:00Z"'), raws)


def delivered(delivery: EvidenceWriter, *outcomes: FetchedReports) -> None:
    for outcome in outcomes:
        delivery.add(outcome)
    delivery.close()


def documents(fake: FakeBucket, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in fake.get(name).splitlines()]


def collected(store: StateStore) -> set[str]:
    with store.transaction() as state:
        return set(state.collected)


def line(threat_id: str, **fields: object) -> bytes:
    return json.dumps({"_threatId": threat_id, **fields}).encode() + b"\n"


def campaign(campaign_id: object) -> dict[str, object]:
    return {"scope": "CAMPAIGN", "id": campaign_id, "forensics": []}


@pytest.mark.parametrize(
    ("prefix", "number", "name"),
    [
        ("tap-forensics", 1, FIRST),
        ("tap-forensics", 2, SECOND),
        ("", 1, f"tap_forensics_{RUN}.ndjson"),
        ("a/b", 12345, f"a/b/tap_forensics_{RUN}_12345.ndjson"),
    ],
)
def test_objects_are_named_as_the_published_function_names_them(prefix: str, number: int, name: str) -> None:
    assert object_name(prefix, RUN, number) == name


def test_what_was_fetched_lies_in_one_object_and_is_settled(
    fake: FakeBucket, store: StateStore, delivery: Make, log: LogCollector, stats: RunStats
) -> None:
    delivered(
        delivery(),
        fetched("t1", {"id": "r1"}, {"id": "r2"}, linked="c1"),
        fetched("t2", {"id": "r3"}, linked="c1"),
    )
    generated = "2026-03-04T08:00:00Z"
    assert documents(fake, FIRST) == [
        {"id": report, "_threatId": threat, "_campaignId": "c1", "generated": generated}
        for threat, report in (("t1", "r1"), ("t1", "r2"), ("t2", "r3"))
    ]
    assert collected(store) == {"t1", "t2"}
    assert f"Wrote 3 records to gs://demo-bucket/{FIRST}" in log.messages()
    assert (stats.threats_fetched, stats.reports, stats.lines, stats.objects) == (2, 3, 3, 1)
    assert stats.lines_bytes == len(fake.get(FIRST))
    assert store.lease.batches == 1


def test_a_batch_without_a_line_makes_no_object_and_is_settled(
    fake: FakeBucket, store: StateStore, delivery: Make
) -> None:
    delivered(delivery(), fetched("t1", 5, "text", []))
    assert fake.names(PREFIX) == []
    assert collected(store) == {"t1"}


def test_nothing_to_deliver_writes_nothing(fake: FakeBucket, delivery: Make) -> None:
    before = fake.generation(STATE)
    delivered(delivery())
    assert (fake.names(), fake.generation(STATE)) == ([STATE], before)


def test_a_campaigns_report_is_written_once_a_run(
    fake: FakeBucket, store: StateStore, delivery: Make
) -> None:
    delivered(delivery(), *(fetched(threat, {"id": threat}, campaign("c1")) for threat in ("t1", "t2", "t3")))
    assert [document["id"] for document in documents(fake, FIRST)] == ["t1", "c1", "t2", "t3"]
    assert store.lease.campaigns == ["c1"]


def test_a_campaigns_report_is_written_every_time_if_asked_for(fake: FakeBucket, delivery: Make) -> None:
    delivered(
        delivery(CAMPAIGN_REPORTS="every"), fetched("t1", campaign("c1")), fetched("t2", campaign("c1"))
    )
    assert [document["_threatId"] for document in documents(fake, FIRST)] == ["t1", "t2"]


def test_a_campaign_that_a_dead_run_had_written_is_not_written_again(
    fake: FakeBucket, run: Run, delivery: Make
) -> None:
    fake.put(FIRST, line("t0", scope="CAMPAIGN", id="c1"))
    recover_objects(run())
    delivered(delivery(), fetched("t1", {"id": "r1"}, campaign("c1")))
    assert [document["id"] for document in documents(fake, SECOND)] == ["r1"]


def test_a_name_taken_by_a_zombie_costs_no_evidence_and_repeats_none(
    fake: FakeBucket, store: StateStore, delivery: Make
) -> None:
    theirs = line("t1", id="theirs")
    fake.put(FIRST, theirs)
    delivered(delivery(), fetched("t1", {"id": "r1"}), fetched("t2", {"id": "r2"}))
    assert fake.get(FIRST) == theirs
    assert [document["_threatId"] for document in documents(fake, SECOND)] == ["t2"]
    assert collected(store) == {"t1", "t2"}


@pytest.mark.parametrize("shape", ["report", "response"])
@pytest.mark.parametrize(
    "report",
    [
        campaign("x" * 4_000_000),
        campaign("\U0001f600" * 1_200_000),
        {"scope": "x" * 4_000_000, "id": ["x" * 4_000_000], "forensics": ["x" * 4_000_000]},
    ],
    ids=range(3),
)
def test_no_line_is_too_long_for_the_feed_whatever_a_report_calls_itself(
    fake: FakeBucket, delivery: Make, shape: str, report: dict[str, object]
) -> None:
    delivered(delivery(RECORD_SHAPE=shape), fetched("t1", report))
    longest = max(len(written) for written in fake.get(FIRST).splitlines(keepends=True))
    assert longest <= LONGEST_LINE_BYTES


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000])
@pytest.mark.parametrize("name", [b"id", b"scope"])
def test_a_report_with_a_number_out_of_range_in_its_head_is_written(
    fake: FakeBucket, delivery: Make, name: bytes, number: bytes
) -> None:
    delivered(delivery(), fetched("t1", b'{"' + name + b'":' + number + b',"forensics":[{"type":"url"}]}'))
    assert b'"forensics":[{"type":"url"}]' in fake.get(FIRST)


def nested(depth: int) -> bytes:
    return b'{"reports":[{"id":"r","forensics":' + b"[" * depth + b"]" * depth + b"}]}"


def deepest_readable() -> bytes:
    """The most deeply nested report that a thread with an empty stack can still read: a worker's case."""
    found: list[bytes] = []

    def search() -> None:
        low, high = 1, 200_000
        while low < high:
            middle = (low + high + 1) // 2
            try:
                report = msgspec.json.decode(nested(middle), type=dict[str, list[msgspec.Raw]])["reports"][0]
            except RecursionError:
                high = middle - 1
            else:
                low, found[:] = middle, [bytes(report)]

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    return found[0]


def deep_in_the_stack(frames: int, call: Callable[[], None]) -> None:
    """As under a web server, where the run's own thread works."""
    if frames:
        deep_in_the_stack(frames - 1, call)
    else:
        call()


def test_a_report_that_a_worker_could_just_read_is_written_or_named_in_an_error(
    fake: FakeBucket, delivery: Make, log: LogCollector
) -> None:
    outcome = fetched("t1", deepest_readable())
    deep_in_the_stack(50, lambda: delivered(delivery(), outcome, fetched("t2", {"id": "r2"})))
    written = b"".join(fake.objects(PREFIX).values())
    assert b'"t2"' in written
    assert b'"t1"' in written or any("t1" in words for words in log.messages(logging.ERROR))


def test_a_dead_runs_objects_are_found_until_one_is_missing(
    fake: FakeBucket, store: StateStore, run: Run
) -> None:
    fake.put(FIRST, line("t1") + line("t1", _part=2) + line("t2", scope="CAMPAIGN", id="c1"))
    fake.put(SECOND, line("t3", reports=[campaign("c2"), {"scope": "THREAT", "id": "x"}]))
    fake.put(f"{PREFIX}/tap_forensics_{RUN}_0004.ndjson", line("not ours"))
    assert recover_objects(run()) == 2
    # The campaign's line may have been requested by campaignId: then its threat still waits for its own.
    assert collected(store) == {"t1", "t3"}
    assert (store.lease.batches, store.lease.campaigns) == (2, ["c1", "c2"])


def test_a_dead_run_without_objects_left_nothing_to_find(store: StateStore, run: Run) -> None:
    assert recover_objects(run()) == 0
    assert store.lease.batches == 0


HOSTILE = [
    b"",
    b"\n\n\r\n",
    b"not json\n",
    b"\xff\xfe\x00\n",
    b"null\n5\n[]\n",
    b"{}\n",
    b'{"_threatId":null}\n{"_threatId":5}\n{"_threatId":["t"]}\n',
    b'{"_threatId":"\xff"}\n',
    rb'{"_threatId":"\ud800"}' + b"\n",
    b'{"_threatId":"u","scope":1e999,"id":1e999}\n',
    b'{"_threatId":"u","scope":"CAMPAIGN","id":5}\n',
    b'{"_threatId":"u","reports":5}\n',
    b'{"_threatId":"u","reports":[5,null,{"scope":1e999},{"scope":"CAMPAIGN","id":"\xff"}]}\n',
    b'{"_threatId":"u","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    b'{"_threatId":"u","reports":[{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}\n",
    b'{"_threatId":"u"',
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_line_of_ours_under_our_name_is_passed_over(
    fake: FakeBucket, store: StateStore, run: Run, hostile: bytes
) -> None:
    fake.put(FIRST, line("before") + hostile + b"\n" + line("after"))
    fake.put(SECOND, hostile)
    fake.put(THIRD, line("third"))
    assert recover_objects(run()) == 3
    assert {"before", "after", "third"} <= collected(store) <= {"before", "after", "third", "u"}
    store.commit()


def test_a_lines_order_and_ends_do_not_matter(store: StateStore, run: Run) -> None:
    record_object(run(), b'  {"x":1,"_threatId":"a"}\r\n{"_threatId":"b"}')
    assert collected(store) == {"a", "b"}
