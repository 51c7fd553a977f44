"""Writes that the bucket slows down, and those too large for one request."""

from __future__ import annotations

import time

import pytest
from requests import Response

from tap_forensics.errors import StorageFailed
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.storage.bucket import Bucket, Conflict, Stored
from tests.support.gate import (
    Arrived,
    Gate,
    Rule,
    answered,
    behind,
    lost,
    once_a_second,
    passed,
    precondition,
)

# The library drops the connection of a failed download without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

TEXT = "text/plain"
NAME = "state/o.json"
# Two chunks: the first of 8 MiB, the second of 1.
LARGE = b"0123456789abcdef" * (9 * 65536)
WHOLE_UPLOAD = ["POST", "PUT", "PUT"]

# An accepted part ends at a multiple of 256 KiB.
PART = answered(308, Range="bytes=0-262143")
NOTHING = answered(308)
EXPIRED, GONE = answered(404), answered(410)
INTERRUPTIONS = [
    (PART, "the bucket accepted only a part of a chunk"),
    (NOTHING, "the bucket accepted nothing of a chunk (308)"),
    (EXPIRED, "the upload session expired (404)"),
    (GONE, "the upload session expired (410)"),
]
IDS = ["part", "nothing", "expired", "gone"]
interrupted = pytest.mark.parametrize("interruption", [rule for rule, _ in INTERRUPTIONS], ids=IDS)


def test_a_large_object_is_written_in_chunks(fake: FakeBucket) -> None:
    gate = Gate()
    generation = behind(gate, fake).create(NAME, LARGE, TEXT)
    assert gate.asked == WHOLE_UPLOAD
    assert (fake.get(NAME), fake.generation(NAME)) == (LARGE, generation)


@interrupted
def test_an_interrupted_upload_starts_again(fake: FakeBucket, interruption: Rule) -> None:
    gate = Gate(PUT=[interruption])
    generation = behind(gate, fake).create(NAME, LARGE, TEXT)
    assert gate.asked == ["POST", "PUT", *WHOLE_UPLOAD]
    assert (fake.get(NAME), fake.generation(NAME)) == (LARGE, generation)


@interrupted
def test_the_last_chunk_can_be_interrupted_too(fake: FakeBucket, interruption: Rule) -> None:
    gate = Gate(PUT=[passed, interruption])
    behind(gate, fake).create(NAME, LARGE, TEXT)
    assert gate.asked == WHOLE_UPLOAD * 2
    assert fake.get(NAME) == LARGE


@pytest.mark.parametrize(("interruption", "sentence"), INTERRUPTIONS, ids=IDS)
def test_two_interruptions_are_a_storage_failure(fake: FakeBucket, interruption: Rule, sentence: str) -> None:
    gate = Gate(PUT=[interruption, interruption])
    with pytest.raises(StorageFailed) as caught:
        behind(gate, fake).create(NAME, LARGE, TEXT)
    assert str(caught.value) == f"could not write gs://{fake.name}/{NAME}: {sentence}"
    assert gate.asked == ["POST", "PUT"] * 2
    assert fake.names() == []


def test_a_missing_bucket_is_no_lost_session(fake: FakeBucket) -> None:
    gate = Gate()
    client = fake.client()
    client._http.mount("http://", gate)
    with pytest.raises(StorageFailed, match=r"NotFound \(404\); check the bucket"):
        Bucket(client, "other-bucket", lambda: 30.0).create(NAME, LARGE, TEXT)
    assert "PUT" not in gate.asked


@pytest.mark.parametrize("later", [EXPIRED, GONE, PART], ids=["expired", "gone", "part"])
def test_our_own_bytes_count_after_a_lost_response(fake: FakeBucket, later: Rule) -> None:
    """The last chunk landed, its session is over, and the second upload finds the object there."""
    begin = precondition(fake, NAME, 0)
    gate = Gate(POST=[begin, begin], PUT=[passed, lost, later])
    generation = behind(gate, fake).create(NAME, LARGE, TEXT)
    assert gate.asked == [*WHOLE_UPLOAD, "PUT", "POST", "GET"]
    assert (fake.get(NAME), fake.generation(NAME)) == (LARGE, generation)


def test_what_another_wrote_meanwhile_is_a_conflict(fake: FakeBucket) -> None:
    def expired_meanwhile(arrived: Arrived) -> Response:
        fake.put(NAME, b"theirs")
        return EXPIRED(arrived)

    begin = precondition(fake, NAME, 0)
    gate = Gate(POST=[begin, begin], PUT=[expired_meanwhile])
    with pytest.raises(Conflict) as caught:
        behind(gate, fake).create(NAME, LARGE, TEXT)
    assert caught.value.stored == Stored(b"theirs", fake.generation(NAME))


def test_an_error_of_a_small_upload_is_no_interruption(fake: FakeBucket) -> None:
    def broken(arrived: Arrived) -> Response:
        raise ValueError(f"no chunk: {arrived.request.method}")

    gate = Gate(POST=[broken])
    with pytest.raises(ValueError, match="no chunk: POST"):
        behind(gate, fake).create(NAME, b"small", TEXT)
    assert gate.asked == ["POST"]


def test_a_second_write_within_a_second_waits_for_the_bucket(fake: FakeBucket) -> None:
    gate = Gate(POST=[once_a_second()] * 100)
    bucket = behind(gate, fake)
    first = bucket.create(NAME, b"one", TEXT)
    assert fake.get(NAME) == b"one"
    second = bucket.replace(NAME, b"two", TEXT, first)
    assert (fake.get(NAME), fake.generation(NAME)) == (b"two", second)
    assert gate.answered[:2] == [200, 429]
    assert gate.answered.count(200) == 2


def test_a_bucket_that_is_busy_without_end_costs_no_more_than_the_run_has_left(fake: FakeBucket) -> None:
    gate = Gate(POST=[answered(429)] * 1000)
    began = time.monotonic()
    with pytest.raises(StorageFailed, match=f"could not write gs://{fake.name}/{NAME}"):
        behind(gate, fake, lambda: 1.0, min_wait_seconds=0.1).create(NAME, b"one", TEXT)
    assert time.monotonic() - began < 20  # not the 60 s of a run with time


def test_each_chunk_waits_no_longer_than_the_run_has_left_by_then(fake: FakeBucket) -> None:
    gate = Gate(PUT=[passed, *[answered(503)] * 1000])
    began = time.monotonic()
    with pytest.raises(StorageFailed):
        bucket = behind(gate, fake, lambda: 0.0 if 308 in gate.answered else 60.0, min_wait_seconds=0.1)
        bucket.create(NAME, LARGE, TEXT)
    assert time.monotonic() - began < 20  # not the 60 s that were left when it began
