"""What can go wrong in a random world: on the way to TAP, at its gateway, between a run and its bucket."""

from __future__ import annotations

import gzip
import threading
from typing import Any

from hypothesis import strategies as st
from requests import PreparedRequest, Response

from tap_forensics.sandbox.faults import Fault
from tests.support.lab import Lab, RunResult
from tests.support.lab_bucket import Through


class Dying(Through):
    """To the bucket, a process that is killed at its n-th call: right before it, or right after it landed."""

    def __init__(self, at: int, *, landed: bool) -> None:
        super().__init__()
        self.calls, self.at, self.landed = 0, at, landed
        self.counting = threading.Lock()

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        with self.counting:
            self.calls += 1
            call = self.calls
        if call == self.at and self.landed:
            super().send(request, *args, **kwargs)
        if call >= self.at:
            raise OSError("this process was killed")
        return super().send(request, *args, **kwargs)


def run_and_die(lab: Lab, at: int, *, landed: bool) -> RunResult:
    with lab.through(Dying(at, landed=landed)):
        return lab.run()


HTML = {"Content-Type": "text/html"}
PAGE = b"<!DOCTYPE html><html><body>Your proxy says no.</body></html>"
NOT_TAPS = [b'{"message":"Service unavailable"}', b'{"error":{"code":9}}', b"{}", b"[]", b"null", PAGE]
# Unpacked it is larger than any answer may be; on the wire it is 66 kB.
BOMB = Fault(
    "body",
    headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
    body=gzip.compress(b'{"reports":[' + b" " * (65 << 20) + b"]}", 9),
)

PASSING = st.one_of(
    st.builds(
        Fault, st.just("status"), status=st.sampled_from([500, 503, 429, 404]), times=st.integers(1, 12)
    ),
    st.builds(
        Fault,
        st.just("status"),
        status=st.sampled_from([503, 429]),
        headers=st.sampled_from(["0", "5", "400", "Thu, 01 Jan 1970 00:00:00 GMT", "-1", "x"]).map(
            lambda text: {"Retry-After": text}
        ),
        times=st.integers(1, 6),
    ),
    st.builds(
        Fault, st.sampled_from(["reset", "cut"]), after_bytes=st.integers(1, 99), times=st.integers(1, 9)
    ),
    st.builds(
        Fault, st.just("body"), body=st.sampled_from([b"", b"{", b"[]", b"\xff"]), times=st.integers(1, 6)
    ),
)
ANSWERS_OF_OTHERS = st.builds(
    Fault, st.just("body"), body=st.sampled_from(NOT_TAPS), times=st.integers(1, 12)
)
REFUSALS = st.one_of(
    st.builds(
        Fault,
        st.just("status"),
        status=st.sampled_from([302, 407, 410]),
        headers=st.just({"Location": "https://example.com/"}),
        times=st.integers(1, 12),
    ),
    st.builds(
        Fault,
        st.just("status"),
        status=st.sampled_from([400, 404]),
        body=st.just(PAGE),
        headers=st.just(HTML),
        times=st.integers(1, 12),
    ),
)
FAULTS = st.one_of(PASSING, ANSWERS_OF_OTHERS, REFUSALS)
