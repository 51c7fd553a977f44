"""What the bucket alone knows: an object's age by its clock, and versions that are no longer live."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tap_forensics.errors import StorageFailed
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.storage.bucket import Bucket, Stored
from tests.support.gate import Gate, Rule, answered, behind

# The library drops the connection of a failed download without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

TEXT = "text/plain"
NAME = "state/é o.json"


def told(date: str | None = "Wed, 04 Mar 2026 10:00:42 GMT", **changes: Any) -> Rule:
    """Metadata with these changes; what is None is left out."""
    metadata = {"generation": "7", "updated": "2026-03-04T10:00:00.250Z"} | changes
    kept = {key: value for key, value in metadata.items() if value is not None}
    return answered(200, json.dumps(kept).encode(), **({"Date": date} if date else {}))


@pytest.fixture
def versioned(fake: FakeBucket) -> Bucket:
    """A bucket that keeps noncurrent versions."""
    client = fake.client()
    made = client.bucket("versioned-bucket")
    made.versioning_enabled = True
    client.create_bucket(made)
    fake.name = made.name
    return Bucket(client, made.name, lambda: 30.0)


def test_the_age_of_an_object_is_its_time_since_it_was_written(bucket: Bucket) -> None:
    before = time.monotonic()
    generation = bucket.create(NAME, b"x", TEXT)
    age = bucket.age_seconds(NAME, generation)
    assert age is not None
    assert 0 <= age <= time.monotonic() - before


def test_the_age_is_counted_by_the_times_in_one_response_alone(fake: FakeBucket) -> None:
    gate = Gate(GET=[told()])
    assert behind(gate, fake).age_seconds(NAME, 7) == 41.75  # whatever the local clock says
    assert gate.asked == ["GET"]


def test_an_age_is_never_negative(fake: FakeBucket) -> None:
    """`Date` has whole seconds, so it can be before the write."""
    gate = Gate(GET=[told(date="Wed, 04 Mar 2026 10:00:00 GMT")])
    assert behind(gate, fake).age_seconds(NAME, 7) == 0


def test_a_generation_that_was_replaced_has_no_age(bucket: Bucket) -> None:
    first = bucket.create(NAME, b"x", TEXT)
    second = bucket.replace(NAME, b"y", TEXT, first)
    assert bucket.age_seconds(NAME, first) is None
    assert bucket.age_seconds(NAME, second) is not None


def test_a_deleted_object_has_no_age(fake: FakeBucket, bucket: Bucket) -> None:
    generation = bucket.create(NAME, b"x", TEXT)
    fake.delete(NAME)
    assert bucket.age_seconds(NAME, generation) is None


def test_an_old_version_has_no_age(fake: FakeBucket, versioned: Bucket) -> None:
    generation = versioned.create(NAME, b"x", TEXT)
    fake.delete(NAME)
    assert versioned.age_seconds(NAME, generation) is None


def test_the_age_is_asked_again_after_a_failure(fake: FakeBucket) -> None:
    gate = Gate(GET=[answered(503), answered(429), told()])
    assert behind(gate, fake).age_seconds(NAME, 7) == 41.75
    assert gate.asked == ["GET"] * 3


def test_a_refused_age_names_object_and_remedy(fake: FakeBucket) -> None:
    gate = Gate(GET=[answered(403)])
    with pytest.raises(StorageFailed, match=rf"age of gs://{fake.name}/{NAME}: Forbidden \(403\); "):
        behind(gate, fake).age_seconds(NAME, 7)


@pytest.mark.parametrize(
    "answer",
    [
        told(date=None),
        told(date="yesterday"),
        told(date="Wed, 04 Mar 2026 10:00:42 -0000"),
        told(updated=None),
        told(updated="yesterday"),
        told(updated=7),
        told(generation=None),
        told(generation="new"),
        answered(200, b"<html>"),
        answered(200, b"[]"),
    ],
)
def test_an_age_that_nobody_told_is_a_failure(fake: FakeBucket, answer: Rule) -> None:
    gate = Gate(GET=[answer])
    with pytest.raises(StorageFailed, match=f"could not read the age of gs://{fake.name}/{NAME}: "):
        behind(gate, fake).age_seconds(NAME, 7)


def test_the_live_object_comes_before_its_old_versions(versioned: Bucket) -> None:
    first = versioned.create(NAME, b"one", TEXT)
    second = versioned.replace(NAME, b"two", TEXT, first)
    assert versioned.read_ever(NAME) == Stored(b"two", second)


def test_the_newest_version_of_a_deleted_object_is_read(fake: FakeBucket, versioned: Bucket) -> None:
    first = versioned.create(NAME, b"one", TEXT)
    second = versioned.replace(NAME, b"two", TEXT, first)
    fake.delete(NAME)
    assert versioned.read(NAME) is None
    assert versioned.read_ever(NAME) == Stored(b"two", second)


def test_versions_of_longer_names_are_other_objects(fake: FakeBucket, versioned: Bucket) -> None:
    ours = versioned.create(NAME, b"ours", TEXT)
    fake.delete(NAME)
    for name in (f"{NAME}.seen", f"{NAME} copy", f"{NAME}\tcopy"):
        versioned.create(name, b"theirs", TEXT)
        fake.delete(name)
    assert versioned.read_ever(NAME) == Stored(b"ours", ours)


def test_a_bucket_without_versions_has_nothing_to_read_any_more(fake: FakeBucket, bucket: Bucket) -> None:
    bucket.create(NAME, b"one", TEXT)
    fake.delete(NAME)
    assert bucket.read_ever(NAME) is None


def test_nothing_ever_is_not_said_of_a_bucket_that_is_missing(fake: FakeBucket) -> None:
    missing = Bucket(fake.client(), "other-bucket", lambda: 30.0)
    with pytest.raises(StorageFailed, match=rf"versions of gs://other-bucket/{NAME}: NotFound \(404\)"):
        missing.read_ever(NAME)
