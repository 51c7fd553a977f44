"""The state object and the names in the bucket: what is there, what cannot be read, what is never touched."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

import pytest

from tap_forensics.errors import StateUnreadable, StorageFailed
from tests.integration.faults.test_forensics_faults import once_each
from tests.support.lab import START, RunResult, open_lab
from tests.support.settings import HANDOVER, STATE

UNREADABLE = [
    b"",
    b"not json",
    b"[]",
    b"{}",
    b'{"last_event_time":7}',
    b'{"last_event_time":null}',
    b'{"last_event_time":"yesterday"}',
    b'{"last_event_time":"2126-01-01T00:00:00Z"}',
    b'{"version":3,"last_event_time":"2026-03-04T09:00:00Z"}',
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
    with open_lab() as lab:
        lab.bucket.put(name, data)
        result = lab.run()
        assert isinstance(result.failure, StateUnreadable)
        assert result.has_message(f"gs://demo-bucket/{name}", logging.ERROR)
        assert result.has_message("tap-forensics state repair", logging.ERROR)
        assert lab.bucket.objects() == {name: data}
        assert lab.tap.calls == []


def test_a_state_that_cannot_be_written_fails_the_run_before_anything_is_asked() -> None:
    with open_lab(GCS_BUCKET="no-such-bucket") as lab:
        result = lab.run()
        assert isinstance(result.failure, StorageFailed)
        assert result.has_message("check GCS_BUCKET", logging.ERROR)
        assert lab.tap.calls == []


@pytest.mark.parametrize(
    "text", ["2026-03-04T09:15:00+00:00", "2026-03-04T09:15:00Z", "2026-03-04T09:15:00.5"]
)
def test_the_published_functions_state_is_taken_over_and_brought_up_to_date(text: str) -> None:
    with open_lab() as lab:
        lab.bucket.put(HANDOVER, json.dumps({"last_event_time": text}))
        result = lab.run()
        assert result.has_message("Fetching threats from 2026-03-04T08:15:00Z to 2026-03-04T09:59:0")
        kept = json.loads(lab.bucket.get(HANDOVER))
        assert kept["written_by"] == "tap-forensics"
        assert datetime.fromisoformat(kept["last_event_time"]) == datetime.fromisoformat(
            lab.state()["last_event_time"]
        )


def test_a_state_key_outside_the_prefix_is_the_one_state_object_and_the_guides_code_can_read_it() -> None:
    with open_lab(STATE_KEY="elsewhere/state.json") as lab:
        lab.run()
        names = [name for name in lab.bucket.objects() if not name.endswith(".ndjson")]
        assert names == ["elsewhere/state.json"]
        assert json.loads(lab.bucket.get("elsewhere/state.json"))["last_event_time"].endswith("Z")


def test_with_an_empty_prefix_a_warning_says_that_the_feed_sees_the_state() -> None:
    with open_lab(GCS_PREFIX="") as lab:
        result = lab.run()
        assert result.has_message("GCS_PREFIX is empty", logging.WARNING)
        assert sorted(lab.bucket.objects())[0] == "state.json"
        assert sorted(lab.bucket.objects())[1].startswith("tap_forensics_")


def test_nothing_is_written_under_the_feeds_prefix_but_evidence_and_the_handover() -> None:
    with open_lab() as lab:
        lab.run()
        under = [name for name in lab.bucket.objects() if name.startswith("tap-forensics/")]
        assert [name for name in under if not name.endswith(".ndjson")] == [HANDOVER]


def test_an_object_of_the_same_name_is_never_replaced() -> None:
    with open_lab() as lab:
        taken: list[str] = []
        for seconds in range(5):
            moment = lab.clock.now() + timedelta(seconds=seconds)
            taken.append(f"tap-forensics/tap_forensics_{moment:%Y%m%d_%H%M%S}.ndjson")
            lab.bucket.put(taken[-1], b'{"_threatId":"someone else\'s"}\n')
        lab.run()
        assert all(lab.bucket.get(name) == b'{"_threatId":"someone else\'s"}\n' for name in taken)
        assert once_each(lab)
        assert any(name.endswith("_0002.ndjson") for name in lab.evidence())


def test_an_idle_run_writes_no_evidence_object_and_two_runs_share_no_name() -> None:
    with open_lab() as lab:
        names: set[str] = set()
        for _ in range(3):
            lab.world.add_event(
                "clicksBlocked", [f"{len(names):064x}"], created=lab.clock.now() - timedelta(minutes=5)
            )
            lab.run()
            before, names = names, set(lab.evidence())
            assert len(names) == len(before) + 1
            lab.run()
            assert set(lab.evidence()) == names


def test_saved_state_is_said_once_and_after_everything_else_is_written() -> None:
    with open_lab() as lab:
        messages = lab.run().messages()
        (at,) = [n for n, line in enumerate(messages) if line.startswith("Saved state: last_event_time=")]
        assert all(n < at for n, line in enumerate(messages) if line.startswith("Wrote "))


def test_a_live_lease_ends_the_second_run_well_and_untouched() -> None:
    with open_lab() as lab:
        lease = {
            "run_id": "20260304_095900",
            "owner": "another",
            "seconds": 120,
            "started": START.isoformat(),
        }
        lab.bucket.put(STATE, json.dumps({"version": 2, "lease": lease}))
        before = lab.bucket.objects()
        result: RunResult = lab.run()
        assert result.stats.outcome == "busy"
        assert len([line for line in result.messages() if "holds the lease" in line]) == 1
        assert result.messages(logging.WARNING) == []
        assert lab.bucket.objects() == before
        assert lab.tap.calls == []
        lab.clock.step(minutes=3)
        after = lab.run()
        assert after.has_message("Taking over run 20260304_095900", logging.WARNING)
        assert once_each(lab)
        assert all("20260304_095900" in name for name in lab.evidence())
