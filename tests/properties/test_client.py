from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.clock import Clock, Deadline
from tap_forensics.config.settings import load_settings
from tap_forensics.errors import CollectorError, Unavailable
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.tap.client import TapClient, _unpacked
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
REPORTS = "/v2/forensics"
PRINCIPAL = "demo-principal"


@pytest.fixture(scope="module")
def server() -> Iterator[TapServer]:
    world = World(1, start=NOW - timedelta(hours=1), end=NOW, messages_per_hour=0, clicks_per_hour=0)
    with TapServer(world, clock=lambda: NOW) as server:
        yield server


@contextmanager
def connected(server: TapServer, secret: str) -> Iterator[TapClient]:
    environ = {"GCS_BUCKET": "demo-bucket", "TAP_PRINCIPAL": PRINCIPAL, "TAP_SECRET": secret}
    clock = Clock()
    quota = Quota({}, {SIEM: None, FORENSICS: None})
    loaded = load_settings(environ | {"TAP_API_BASE": server.url})
    with TapClient(loaded, clock, Deadline.after(clock, 60), quota) as tap:
        yield tap


def test_whatever_an_id_holds_it_arrives_as_it_is_and_alone(server: TapServer) -> None:
    with connected(server, "demo-secret") as tap:

        @given(st.text(min_size=1, max_size=256))
        def arrive(threat_id: str) -> None:
            server.forget_calls()
            server.faults.add(REPORTS, Fault("body", body=b"{}"))
            tap.forensics(threat_id)
            (call,) = server.calls
            assert (call.path, call.query) == (
                REPORTS,
                {"threatId": threat_id, "includeCampaignForensics": "true"},
            )

        arrive()


@given(st.binary(max_size=600) | st.text(max_size=600).map(str.encode), st.sampled_from([301, 400, 404, 500]))
def test_whatever_an_errors_body_is_what_is_said_of_it_prints_and_is_bounded(
    server: TapServer, body: bytes, status: int
) -> None:
    server.faults.add(REPORTS, Fault("status", status=status, body=body))
    with connected(server, "demo-secret") as tap, pytest.raises(CollectorError) as caught:
        tap.forensics("t")
    sentence = str(caught.value)
    assert sentence.startswith(f"TAP answered {status}: ")
    assert sentence.isprintable()
    assert len(sentence) <= 300


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=4), st.integers(1, 500), st.integers(0, 20))
def test_what_gzip_packed_comes_out_whole_in_whatever_members_and_pieces(
    members: list[bytes], piece_bytes: int, padding_bytes: int
) -> None:
    packed = b"".join(gzip.compress(member, mtime=0) for member in members) + bytes(padding_bytes)
    chunks = [packed[start : start + piece_bytes] for start in range(0, len(packed), piece_bytes)]
    assert b"".join(_unpacked(chunks)) == b"".join(members)


def test_no_body_is_no_cut_one() -> None:
    assert list(_unpacked([])) == []


@given(st.binary(max_size=2000), st.data())
def test_a_gzip_body_that_is_cut_is_no_answer(body: bytes, data: st.DataObject) -> None:
    packed = gzip.compress(body, mtime=0)
    left = packed[: data.draw(st.integers(1, len(packed) - 1))]
    with pytest.raises(Unavailable):
        list(_unpacked([left]))
