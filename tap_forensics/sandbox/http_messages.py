"""One HTTP exchange as values: what was asked, what is answered, and the journal's record of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """A request as the stand-in reads it; `args` holds every value of each query parameter, decoded."""

    method: str
    path: str
    args: Mapping[str, list[str]]
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, method: str, target: str, headers: Mapping[str, str]) -> Request:
        """Takes the request line's target apart; header names are folded to lower case."""
        parts = urlsplit(target)
        args = parse_qs(parts.query, keep_blank_values=True)
        return cls(method, parts.path, args, {name.lower(): value for name, value in headers.items()})

    @property
    def query(self) -> dict[str, str]:
        """The query with one text a parameter; values of a repeated one are joined by commas."""
        return {name: ",".join(values) for name, values in self.args.items()}


@dataclass(frozen=True)
class Response:
    """An answer before it goes on the wire. `reason` None means the usual phrase; "" sends none at all."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass
class Call:
    """One line of the journal.

    `time` is the stand-in's clock; `status` stays None where no status line went out (a reset, a hang).
    `in_flight` counts the calls under way at this one's arrival, itself included. `headers` leaves out the
    credentials. `fault` names the fault that was met.
    """

    time: datetime
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    in_flight: int
    status: int | None = None
    fault: str | None = None
