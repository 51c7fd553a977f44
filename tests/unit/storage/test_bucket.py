from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tap_forensics.errors import StorageFailed
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.processes import free_port
from tap_forensics.storage.bucket import Bucket, Conflict, Stored, open_client
from tap_forensics.storage.remedies import REMEDIES

# The library drops the connection of a failed download without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

TEXT = "text/plain"
BUCKET, NAME = "demo-bucket", "logs/o.ndjson"


class StubServer(ThreadingHTTPServer):
    """Gives every request, or the first `times`, only a status; leads the others on to `onward`."""

    daemon_threads = True

    def __init__(self, status: int, times: int, onward: str) -> None:
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.status, self.times, self.onward = status, times, onward
        self.asked: list[str] = []

    def handle_error(self, *_: object) -> None:
        """Silent: clients that hang up are no news."""


class StubHandler(BaseHTTPRequestHandler):
    server: StubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def answer(self) -> None:
        self.server.asked.append(self.path.partition("?")[0])
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.times -= 1
        if self.server.times < 0:
            self._send(307, b"", Location=self.server.onward + self.path)
            return
        error = {"error": {"code": self.server.status, "message": "told by the stub"}}
        self._send(self.server.status, json.dumps(error).encode())

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - names that http.server looks for


@contextmanager
def stub(server: StubServer) -> Iterator[StubServer]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def storage_that_answers(
    status: int, times: int = 10**9, onward: str = "", remaining_seconds: float = 30
) -> Iterator[Bucket]:
    with stub(StubServer(status, times, onward)) as server:
        client = FakeBucket(BUCKET, server.server_port).client()
        yield Bucket(client, BUCKET, lambda: remaining_seconds, min_wait_seconds=0.2)
        client.close()


@pytest.fixture(autouse=True)
def dropped_connections() -> Iterator[None]:
    """What the library drops is collected here, and not in another module's test."""
    yield
    gc.collect()


def test_an_object_that_is_not_there_is_none(bucket: Bucket) -> None:
    assert bucket.read(NAME) is None


def test_an_object_is_read_whole_with_its_generation(fake: FakeBucket, bucket: Bucket) -> None:
    fake.put(NAME, b"some\x00bytes")
    assert bucket.read(NAME) == Stored(b"some\x00bytes", fake.generation(NAME))


def test_an_empty_object_is_there(fake: FakeBucket, bucket: Bucket) -> None:
    fake.put(NAME, b"")
    assert bucket.read(NAME) == Stored(b"", fake.generation(NAME))


@pytest.mark.parametrize("name", ["plain.json", "ünï/cödé 😀.json", "a%2Fb", "a?b#c&d", "a b+c", "../up"])
def test_a_name_is_written_and_read_as_it_is(fake: FakeBucket, bucket: Bucket, name: str) -> None:
    generation = bucket.create(name, b"x", TEXT)
    assert bucket.read(name) == Stored(b"x", generation)
    assert fake.names() == [name]


def test_a_created_object_has_its_bytes_and_its_type(fake: FakeBucket, bucket: Bucket) -> None:
    generation = bucket.create(NAME, "é\n".encode(), "application/x-ndjson")
    assert (fake.get(NAME), fake.generation(NAME)) == ("é\n".encode(), generation)
    assert fake.client().bucket(BUCKET).get_blob(NAME).content_type == "application/x-ndjson"


def test_an_object_is_never_created_over_another(fake: FakeBucket, bucket: Bucket) -> None:
    fake.put(NAME, b"theirs")
    before = fake.generation(NAME)
    with pytest.raises(Conflict) as caught:
        bucket.create(NAME, b"ours", TEXT)
    assert caught.value.stored == Stored(b"theirs", before)
    assert (fake.get(NAME), fake.generation(NAME)) == (b"theirs", before)


def test_our_own_bytes_already_there_are_our_success(fake: FakeBucket, bucket: Bucket) -> None:
    fake.put(NAME, b"ours")
    assert bucket.create(NAME, b"ours", TEXT) == fake.generation(NAME)


def test_the_generation_that_was_read_can_be_replaced(fake: FakeBucket, bucket: Bucket) -> None:
    first = bucket.create(NAME, b"one", TEXT)
    second = bucket.replace(NAME, b"two", TEXT, first)
    assert second != first
    assert (fake.get(NAME), fake.generation(NAME)) == (b"two", second)


def test_any_other_generation_is_not_replaced(fake: FakeBucket, bucket: Bucket) -> None:
    first = bucket.create(NAME, b"one", TEXT)
    second = bucket.replace(NAME, b"two", TEXT, first)
    with pytest.raises(Conflict) as caught:
        bucket.replace(NAME, b"three", TEXT, first)
    assert caught.value.stored == Stored(b"two", second)
    assert fake.get(NAME) == b"two"


def test_replacing_what_has_gone_carries_that_nothing_is_there(fake: FakeBucket, bucket: Bucket) -> None:
    generation = bucket.create(NAME, b"one", TEXT)
    fake.delete(NAME)
    with pytest.raises(Conflict) as caught:
        bucket.replace(NAME, b"two", TEXT, generation)
    assert caught.value.stored is None
    assert fake.names() == []


def test_of_many_creators_at_once_one_wins_and_the_others_see_its_bytes(fake: FakeBucket) -> None:
    won: list[bytes] = []
    lost: list[bytes] = []
    together = threading.Barrier(4)

    def create(data: bytes, bucket: Bucket) -> None:
        together.wait(10)
        try:
            bucket.create(NAME, data, TEXT)
            won.append(data)
        except Conflict as conflict:
            lost.append(conflict.stored.data if conflict.stored else b"")

    buckets = [Bucket(fake.client(), fake.name, lambda: 30.0) for _ in range(4)]
    threads = [
        threading.Thread(target=create, args=(str(number).encode(), one))
        for number, one in enumerate(buckets)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 1
    assert lost == won * 3


def test_a_bucket_that_is_not_there_is_named_with_the_remedy(fake: FakeBucket) -> None:
    missing = Bucket(fake.client(), "other-bucket", lambda: 30.0)
    with pytest.raises(StorageFailed) as caught:
        missing.create(NAME, b"x", TEXT)
    assert str(caught.value).startswith(f"could not write gs://other-bucket/{NAME}: NotFound (404)")
    assert "check GCS_BUCKET: there is no such bucket" in str(caught.value)


def test_refused_access_names_verb_bucket_object_and_remedy() -> None:
    with storage_that_answers(403) as bucket:
        with pytest.raises(StorageFailed) as read:
            bucket.read(NAME)
        with pytest.raises(StorageFailed) as written:
            bucket.create(NAME, b"x", TEXT)
    remedy = f"Forbidden (403); {REMEDIES[403]}"
    assert "give the function's service account roles/storage.legacyBucketReader on the bucket" in remedy
    assert str(read.value) == f"could not read gs://{BUCKET}/{NAME}: {remedy}"
    assert str(written.value) == f"could not write gs://{BUCKET}/{NAME}: {remedy}"


def test_a_failure_for_a_moment_is_asked_about_again(fake: FakeBucket) -> None:
    with storage_that_answers(503, times=1, onward=fake.url) as bucket:
        assert bucket.read(NAME) is None


@pytest.mark.parametrize("status", [500, 503])
def test_a_failure_without_end_names_bucket_and_object(status: int) -> None:
    with storage_that_answers(status, remaining_seconds=0.2) as bucket:
        with pytest.raises(StorageFailed, match=f"could not read gs://{BUCKET}/{NAME}"):
            bucket.read(NAME)
        with pytest.raises(StorageFailed, match=f"could not write gs://{BUCKET}/{NAME}"):
            bucket.create(NAME, b"x", TEXT)


def test_nobody_at_home_names_bucket_and_object() -> None:
    client = FakeBucket(BUCKET, free_port()).client()
    bucket = Bucket(client, BUCKET, lambda: 0.2, min_wait_seconds=0.2)
    with pytest.raises(StorageFailed, match=f"could not read gs://{BUCKET}/{NAME}"):
        bucket.read(NAME)
    with pytest.raises(StorageFailed, match=f"could not write gs://{BUCKET}/{NAME}"):
        bucket.create(NAME, b"x", TEXT)
    client.close()


def test_without_google_credentials_the_remedies_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    with pytest.raises(StorageFailed, match=r"no Google credentials were found.*STORAGE_EMULATOR_HOST"):
        open_client()


def test_an_emulator_needs_no_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: FakeBucket
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    client = open_client()
    Bucket(client, fake.name, lambda: 30.0).create(NAME, b"x", TEXT)
    client.close()
    assert fake.get(NAME) == b"x"


def test_the_storage_is_asked_for_nothing_but_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", raising=False)
    with stub(StubServer(404, 10**9, "")) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        before = set(threading.enumerate())
        client = open_client()
        assert Bucket(client, BUCKET, lambda: 30.0).read("o.ndjson") is None
        for thread in set(threading.enumerate()) - before:
            if "process_request_thread" not in thread.name:
                thread.join(10)
        client.close()
    assert server.asked == [f"/download/storage/v1/b/{BUCKET}/o/o.ndjson"]
