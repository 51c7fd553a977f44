"""One HTTP exchange as values: the request, the response, and the journal's record of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qs, urlsplit

from tap_forensics.sandbox import routes


@dataclass(frozen=True)
class Request:
    """A request as the stand-in reads it. `args` holds all decoded values of each query parameter."""

    method: str
    path: str
    args: Mapping[str, list[str]]
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, method: str, target: str, headers: Mapping[str, str]) -> Request:
        """Parses the target of the request line and converts header names to lower case."""
        parts = urlsplit(target)
        args = parse_qs(parts.query, keep_blank_values=True)
        return cls(method, parts.path, args, {name.lower(): value for name, value in headers.items()})

    @property
    def query(self) -> dict[str, str]:
        """The query with one string per parameter. Values of a repeated parameter are joined by commas."""
        return {name: ",".join(values) for name, values in self.args.items()}

    @property
    def pool(self) -> str | None:
        return routes.pool_of(self.path, self.query)

    @property
    def asked_id(self) -> str | None:
        """The threat or campaign that the request names, in its query or in its path."""
        return routes.asked_id(self.path, self.query)


@dataclass(frozen=True)
class Response:
    """A response before it is sent. `reason` None means the standard phrase; "" sends no phrase."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass
class Call:
    """One entry in the journal.

    `time` is read from the stand-in's clock. `status` stays None if no status line was sent (a reset, a
    hang). `in_flight` is the number of calls in progress when this one arrived, including this one.
    `headers` does not contain the credentials. `fault` is the kind of the fault that was applied.
    """

    time: datetime
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    in_flight: int
    status: int | None = None
    fault: str | None = None

    @property
    def pool(self) -> str | None:
        return routes.pool_of(self.path, self.query)

    @property
    def asked_id(self) -> str | None:
        return routes.asked_id(self.path, self.query)
