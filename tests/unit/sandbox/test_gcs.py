from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from google.cloud.exceptions import NotFound, PreconditionFailed

from tap_forensics.sandbox.gcs import FakeBucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[FakeBucket]:
    with FakeBucket() as bucket:
        yield bucket


def test_an_object_that_exists_cannot_be_created_again(bucket: FakeBucket) -> None:
    bucket.put("once", "mine", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.put("once", "theirs", if_generation_match=0)
    assert bucket.get("once") == b"mine"


def test_an_object_is_replaced_only_by_who_knows_its_generation(bucket: FakeBucket) -> None:
    bucket.put("state", "1")
    known = bucket.generation("state")
    bucket.put("state", "2", if_generation_match=known)
    with pytest.raises(PreconditionFailed):
        bucket.put("state", "3", if_generation_match=known)
    assert bucket.get("state") == b"2"


def test_objects_are_listed_with_their_bytes_and_can_go(bucket: FakeBucket) -> None:
    bucket.put("list/b", "B")
    bucket.put("list/a", "Ä")
    assert bucket.objects("list/") == {"list/a": "Ä".encode(), "list/b": b"B"}
    bucket.delete("list/a")
    assert bucket.names("list/") == ["list/b"]
    assert bucket.generation("list/a") == 0
    with pytest.raises(NotFound):
        bucket.get("list/a")


@pytest.mark.slow
def test_the_server_still_answers_after_more_requests_than_a_full_pipe_would_allow(
    bucket: FakeBucket,
) -> None:
    for _ in range(600):
        bucket.generation("nothing")


def test_the_environment_of_this_process_is_left_alone(bucket: FakeBucket) -> None:
    assert bucket.url.startswith("http://127.0.0.1:")
    assert "STORAGE_EMULATOR_HOST" not in os.environ
