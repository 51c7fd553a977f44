"""Planned faults: what to do to which request. Hits are counted, so a test can fail on an unused fault."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from tap_forensics.sandbox import routes
from tap_forensics.sandbox.http_messages import Request

Kind = Literal["status", "reset", "cut", "drip", "drip_headers", "hang", "body", "delay"]
Predicate = Callable[[Request], bool]


@dataclass(frozen=True)
class Fault:
    """What replaces or disturbs the normal response to a request.

    - `status`: responds with `status`, `body` and `headers`. `body`: the same with 200, for hostile bytes.
    - `reset`: ends the connection with RST after `after_bytes` of the body (0: before any response).
    - `cut`: the head declares the whole body, but the connection closes after `after_bytes` of it.
    - `drip`: sends `chunk_bytes` of the body every `delay_seconds`.
    - `drip_headers`: sends one byte of the head every `delay_seconds`.
    - `hang`: no response until the client disconnects, the server stops or the plan releases the request.
    - `delay`: the normal response after `delay_seconds`.

    `times` None means no limit. `reason` "" leaves the reason phrase out of the status line.
    """

    kind: Kind
    times: int | None = 1
    status: int = 503
    body: bytes = b'{"message":"made to fail"}'
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    delay_seconds: float = 0.05
    after_bytes: int = 0
    chunk_bytes: int = 16

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"no such fault: {self.kind!r}")


@dataclass
class Rule:
    """A fault, the requests it applies to, and its number of hits."""

    name: str
    applies: Predicate
    fault: Fault
    hits: int = 0

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.hits >= self.fault.times

    @property
    def fulfilled(self) -> bool:
        return self.hits >= (1 if self.fault.times is None else self.fault.times)


class FaultPlan:
    """An ordered list of faults. The first one that applies and is not spent is used. Thread-safe."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self.released = threading.Event()

    def add(
        self,
        where: str | Predicate,
        fault: Fault,
        *,
        threat_id: str | None = None,
        overlapping: tuple[datetime, datetime] | None = None,
        args: Mapping[str, str] | None = None,
    ) -> Fault:
        """Plans `fault` for requests to the path `where`, or for requests that the predicate `where` accepts.

        A path that ends with a slash stands for every path below it. `threat_id` (in the query, or at the
        end of the path) and `args` must match exactly; `interval` must overlap [start, end) of `overlapping`.
        """
        tests: list[Predicate] = [
            where if callable(where) else lambda request: routes.matches(where, request.path)
        ]
        if threat_id:
            tests.append(lambda request: request.asked_id == threat_id)
        if args:
            tests.append(lambda request: args.items() <= request.query.items())
        if overlapping:
            tests.append(lambda request: overlaps(request.query.get("interval", ""), overlapping))
        place = where if isinstance(where, str) else getattr(where, "__name__", "a predicate")
        rule = Rule(f"{fault.kind} on {place}", lambda request: all(test(request) for test in tests), fault)
        with self._lock:
            self._rules.append(rule)
        return fault

    def match(self, request: Request) -> Fault | None:
        """Returns the fault for this request and counts a hit. None means the normal response."""
        with self._lock:
            for rule in self._rules:
                if not rule.spent and rule.applies(request):
                    rule.hits += 1
                    return rule.fault
        return None

    def counts(self) -> list[tuple[str, int, int | None]]:
        """(name, hits, planned times) of each fault, in order."""
        with self._lock:
            return [(rule.name, rule.hits, rule.fault.times) for rule in self._rules]

    def assert_all_met(self) -> None:
        """Raises AssertionError with the name of every fault that has fewer hits than planned."""
        with self._lock:
            missed = [rule for rule in self._rules if not rule.fulfilled]
        if missed:
            lines = "; ".join(f"{rule.name} (met {rule.hits} of {rule.fault.times or 1})" for rule in missed)
            raise AssertionError(f"faults never met: {lines}")

    def clear(self) -> None:
        """Removes all faults and ends all hanging requests."""
        with self._lock:
            self._rules.clear()
        self.release()

    def release(self) -> None:
        """Ends all hanging requests. Later requests can hang again."""
        self.released.set()
        self.released = threading.Event()


def overlaps(interval: str, window: tuple[datetime, datetime]) -> bool:
    """Whether `START/END` (both ISO 8601) overlaps the half-open window."""
    try:
        start, end = (datetime.fromisoformat(part) for part in interval.split("/"))
    except ValueError:
        return False
    return start < window[1] and window[0] < end


def add_from_json(plan: FaultPlan, order: Mapping[str, Any]) -> None:
    """Plans a fault sent over HTTP: `{"path": …, "threat_id"?: …, "args"?: {…}, "fault": {"kind": …, …}}`.

    The fault's `body` is text; `body_base64` is for bytes that are not text. Raises ValueError, KeyError or
    TypeError if `order` is invalid.
    """
    fields = dict(order["fault"])
    if "body_base64" in fields:
        fields["body"] = base64.b64decode(fields.pop("body_base64"), validate=True)
    elif "body" in fields:
        fields["body"] = fields["body"].encode()
    plan.add(order["path"], Fault(**fields), threat_id=order.get("threat_id"), args=order.get("args"))
