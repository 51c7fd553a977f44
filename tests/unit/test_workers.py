"""How the workers of the forensics half start, fail and end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tap_forensics.clock import Clock, Deadline
from tap_forensics.errors import StorageFailed
from tap_forensics.forensics.responses import FetchedReports, parse_reports
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.storage.state import OpenItem
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import FORENSICS as FORENSICS_POOL
from tap_forensics.workers import Request, WorkerPool, fetch_all
from tests.unit.conftest import Client

FORENSICS = "/v2/forensics"
REPORT = b'{"generated":"2026-03-04T08:00:00Z","reports":[{"id":"r"}]}'


def pool(tap: TapClient) -> WorkerPool:
    deadline = Deadline.after(Clock(), 30)
    return WorkerPool(
        tap,
        FORENSICS_POOL,
        lambda request: tap.forensics(request.name),
        parse_reports,
        deadline,
        lambda *_: None,
    )


def request(threat_id: object) -> Request:
    return Request(str(threat_id), OpenItem())


@pytest.fixture
def answering(server: TapServer) -> TapServer:
    server.faults.add(FORENSICS, Fault("body", body=REPORT, times=None))
    return server


def test_a_worker_that_cannot_be_started_leaves_no_other_behind(
    answering: TapServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_three(thread: threading.Thread) -> None:
        if threading.current_thread() is not threading.main_thread():
            return start(thread)  # one of the stand-in's
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        return start(thread)

    with client() as tap:
        monkeypatch.setattr(threading.Thread, "start", start_three)
        with (
            pytest.raises(RuntimeError),
            closing(fetch_all(pool(tap), map(request, range(999)), 8)) as it,
        ):
            list(it)
        monkeypatch.undo()
        for thread in started:
            thread.join(20)
    assert len(started) == 3
    assert not any(thread.is_alive() for thread in started)
    # They did not go on with what nobody waits for.
    assert len(answering.calls_to(FORENSICS)) < 50


@pytest.mark.usefixtures("answering")
def test_a_commit_that_fails_before_a_threat_is_asked_for_ends_the_fan_out_and_is_told(
    client: Client,
) -> None:
    def announced() -> Iterator[Request]:
        yield request("a")
        raise StorageFailed("the bucket is gone")

    with client() as tap:
        fan = pool(tap)
        outcomes = [outcome for outcome in fetch_all(fan, announced(), 4) if outcome]
    assert [type(outcome) for outcome in outcomes] == [FetchedReports]
    assert isinstance(fan.stop_reason, StorageFailed)
