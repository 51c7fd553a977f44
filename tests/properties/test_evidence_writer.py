from __future__ import annotations

import json
import logging

from hypothesis import given, settings
from hypothesis import strategies as st

from tap_forensics.clock import Clock
from tap_forensics.config.settings import load_settings
from tap_forensics.config.state_location import StateLocation
from tap_forensics.context import RunContext
from tap_forensics.forensics.evidence_writer import record_object
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.stats import RunStats
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.state import decode, encode
from tap_forensics.storage.state_store import StateStore

SETTINGS = load_settings({"GCS_BUCKET": "demo-bucket", "TAP_PRINCIPAL": "p", "TAP_SECRET": "s"})

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("CAMPAIGN")
reports = st.dictionaries(st.sampled_from(["scope", "id", "forensics"]), scalars, max_size=3)
lines = st.fixed_dictionaries(
    {"_threatId": st.text(max_size=5) | scalars},
    optional={"scope": scalars, "id": scalars, "reports": st.lists(reports | scalars, max_size=3) | scalars},
).map(lambda line: json.dumps(line).encode("utf-8", "replace"))
spoilt = st.builds(
    lambda line, place, byte: line[:place] + byte + line[place + 1 :],
    lines,
    st.integers(0, 60),
    st.binary(min_size=1, max_size=1) | st.just(b"\xff"),
)
pieces = st.one_of(lines, spoilt, st.binary(max_size=30), st.just(b"\n"), lines.map(lambda line: line[:-1]))


def test_whatever_lies_under_our_name_is_survived_and_leaves_a_state_that_can_be_committed() -> None:
    with FakeBucket() as fake:
        bucket = Bucket(fake.client(), fake.name, lambda: 30.0)
        store = StateStore(bucket, StateLocation("state.json", None), Clock(), 180)
        store.acquire(lambda *_: None)
        run = RunContext(SETTINGS, logging.getLogger("run"), RunStats(), store, bucket, lambda *_: None)

        @settings(max_examples=400)
        @given(st.lists(pieces, max_size=6).map(b"\n".join))
        def survive(data: bytes) -> None:
            before = store.lease.batches
            record_object(run, data)
            assert store.lease.batches == before + 1
            with store.transaction() as state:
                assert decode(encode(state), "again", run.clock.now()) == state

        survive()
