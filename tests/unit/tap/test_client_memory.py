"""Answers that are too large, alone or together."""

from __future__ import annotations

import gzip
import socket
import threading
import tracemalloc

import pytest

from tap_forensics.errors import (
    DeadlineExceeded,
    TooLarge,
    Unavailable,
)
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.tap.client import TapResponse
from tests.support.loopback import answer, read_head
from tests.support.tap_client import MIB, REPORTS, asked, ended_within, failed, sending
from tests.unit.conftest import Client


def test_an_answer_that_does_not_fit_in_memory_is_refused_while_it_is_read() -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            connection.sendall(b"x" * MIB)
            sent += MIB

    with (
        asked(endless) as ask,
        pytest.raises(Unavailable, match="needs too much memory was rejected while it was read"),
    ):
        ask()
    assert sent < 50 * MIB


def test_an_answer_of_39_mib_is_read() -> None:
    with asked(sending(answer(b"x" * (39 * MIB)))) as ask:
        assert len(ask().body) == 39 * MIB


def test_many_values_packed_small_are_refused_long_before_all_is_unpacked() -> None:
    packed = gzip.compress(b'{"reports":[' + b"{}," * 3_900_000 + b"{}]}")
    assert len(packed) < 46_000
    with asked(sending(answer(packed, "200 OK", "Content-Encoding: gzip"))) as ask:
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge, match="rejected while it was read"):
                ask()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 12 * MIB


@pytest.mark.parametrize("layers", [1, 2])
def test_a_gzip_bomb_is_refused_without_being_unpacked(
    server: TapServer, client: Client, layers: int
) -> None:
    bomb = gzip.compress(bytes(16 * MIB)) * 64
    for _ in range(layers - 1):
        bomb = gzip.compress(bomb)
    encoding = ", ".join(["gzip"] * layers)
    server.faults.add(REPORTS, Fault("body", body=bomb, headers={"Content-Encoding": encoding}))
    tracemalloc.start()
    try:
        error = failed(client)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, Unavailable)
    assert "rejected while it was read" in str(error)
    assert peak < 150 * MIB


def test_bodies_that_do_not_fit_together_come_one_after_the_other(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"x" * (25 * MIB), times=2))
    second: list[TapResponse] = []
    with client() as tap:
        first = tap.forensics("first")
        thread = threading.Thread(target=lambda: second.append(tap.forensics("second")))
        thread.start()
        thread.join(0.5)
        assert second == []
        first.release()
        thread.join(10)
        assert len(second) == 1


def test_bodies_that_fit_together_do_not_wait_for_each_other(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"x" * (3 * MIB), times=8))
    server.faults.add(REPORTS, Fault("body", body=b"x" * 400_000, times=8))
    with client() as tap, ended_within(10):
        store = [tap.forensics("t") for _ in range(16)]
    assert len(store) == 16


def test_who_waits_for_memory_is_let_go_at_the_deadline(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"x" * (25 * MIB), times=2))
    with client(within_seconds=1.5) as tap, ended_within(10):
        tap.forensics("never released")
        with pytest.raises(DeadlineExceeded):
            tap.forensics("waits")


def test_memory_given_back_twice_is_given_back_once(server: TapServer, client: Client) -> None:
    server.faults.add(REPORTS, Fault("body", body=b"x" * (25 * MIB), times=3))
    with client(within_seconds=3) as tap:
        first = tap.forensics("first")
        first.release()
        first.release()
        tap.forensics("second")
        with pytest.raises(DeadlineExceeded):
            tap.forensics("third")


def test_a_large_body_that_breaks_off_gives_its_place_back(
    world: World, server: TapServer, client: Client
) -> None:
    world.add_threat("t")
    world.overrides["t"] = b"x" * (5 * MIB)
    server.gzip = False
    server.faults.add(REPORTS, Fault("cut", after_bytes=4 * MIB))
    with client() as tap:
        with pytest.raises(Unavailable):
            tap.forensics("t")
        assert len(tap.forensics("t").body) == 5 * MIB
