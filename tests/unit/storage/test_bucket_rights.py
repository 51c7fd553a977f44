"""Writes with as few rights as the function has: evidence is created and read, only the state is replaced."""

from __future__ import annotations

import pytest
from requests.adapters import HTTPAdapter

from tap_forensics.errors import StorageFailed
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.storage.bucket import Conflict
from tap_forensics.storage.remedies import REMEDIES
from tests.support.gate import Gate, behind, lost
from tests.support.permissions import CREATE, DELETE, GET, LIST, Permissions, Right

# The library drops the connection of a failed download without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

TEXT = "text/plain"
NAME = "tap-forensics/o.ndjson"
# Two chunks: the first of 8 MiB, the second of 1.
LARGE = b"0123456789abcdef" * (9 * 65536)
either_order = pytest.mark.parametrize(
    "rights_first", [True, False], ids=["rights first", "precondition first"]
)


def with_rights(fake: FakeBucket, *permissions: str, rights_first: bool = True) -> Permissions:
    gate = Permissions([Right(one, "") for one in permissions], fake, rights_first=rights_first)
    gate.inner = HTTPAdapter()
    return gate


@either_order
def test_our_own_bytes_at_a_taken_name_count_without_the_right_to_delete(
    fake: FakeBucket, rights_first: bool
) -> None:
    gate = Gate(POST=[lost])
    bucket = behind(gate, fake)
    gate.inner = with_rights(fake, CREATE, GET, LIST, rights_first=rights_first)
    assert bucket.create(NAME, b"ours", TEXT) == fake.generation(NAME)
    assert gate.asked == ["POST", "POST", "GET"]


@either_order
def test_anothers_bytes_at_a_taken_name_are_a_conflict(fake: FakeBucket, rights_first: bool) -> None:
    fake.put(NAME, b"theirs")
    bucket = behind(with_rights(fake, CREATE, GET, LIST, rights_first=rights_first), fake)
    with pytest.raises(Conflict) as caught:
        bucket.create(NAME, b"ours", TEXT)
    assert caught.value.stored is not None
    assert caught.value.stored.data == b"theirs"


@pytest.mark.parametrize("held", [(GET, LIST), (GET,), ()], ids=["no create", "nor list", "nothing"])
def test_a_create_that_is_forbidden_names_the_write_and_the_remedy(
    fake: FakeBucket, held: tuple[str, ...]
) -> None:
    with pytest.raises(StorageFailed) as caught:
        behind(with_rights(fake, *held), fake).create(NAME, b"ours", TEXT)
    assert str(caught.value) == f"could not write gs://{fake.name}/{NAME}: Forbidden (403); {REMEDIES[403]}"
    assert fake.names() == []


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["at once", "in parts"])
def test_replacing_needs_the_right_to_delete(fake: FakeBucket, data: bytes) -> None:
    fake.put(NAME, b"before")
    before = fake.generation(NAME)
    with pytest.raises(StorageFailed, match=r"Forbidden \(403\)"):
        behind(with_rights(fake, CREATE, GET, LIST), fake).replace(NAME, data, TEXT, before)
    assert fake.get(NAME) == b"before"
    behind(with_rights(fake, CREATE, DELETE), fake).replace(NAME, data, TEXT, before)
    assert fake.get(NAME) == data
