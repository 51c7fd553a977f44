"""Calls as the gate enters them into its journal, and orders of what becomes of a call."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal
from urllib.parse import unquote, urlsplit

PATIENCE_SECONDS = 30

Target = Literal["bucket", "tap"]


@dataclass(eq=False)
class Call:
    """One line of the journal; `status` is what the server answered, None where it was never asked."""

    number: int
    target: Target
    method: str
    path: str
    body: bytes = field(repr=False)
    status: int | None = None

    @property
    def object_name(self) -> str:
        """The object that a call to the bucket reads or writes; "" for any other call."""
        if self.target != "bucket":
            return ""
        if self.writes:
            found = re.search(rb'"name": ?"([^"]+)"', self.body[:2000])
            return found[1].decode() if found else ""
        _, _, name = urlsplit(self.path).path.partition("/o/")
        return unquote(name)

    @property
    def writes(self) -> bool:
        return self.target == "bucket" and self.method in {"POST", "PUT"}

    def __str__(self) -> str:
        return f"{self.number}. {self.method} {self.object_name or self.path} → {self.status}"


Applies = Callable[[Call], bool]


class Act(Enum):
    """What an order does to a call."""

    KILL_BEFORE = "the function dies before the server hears of the call"
    KILL_AFTER = "the function dies when the server has done it, before the answer comes"
    SWALLOW = "the server does it, and in place of the answer the connection is reset"
    HOLD = "the call waits until told, and goes on then"


class Order:
    """One act on the first call that it `applies` to; a SWALLOW can be for all attempts of that call."""

    def __init__(self, applies: Applies, act: Act, *, every_attempt: bool = False) -> None:
        self.act = act
        self.call: Call | None = None
        self._applies, self._every_attempt = applies, every_attempt
        self._met = threading.Event()
        self._released = threading.Event()

    @property
    def met(self) -> bool:
        return self._met.is_set()

    def meets(self, call: Call) -> bool:
        """Whether this call is the one; the gate asks one call at a time."""
        if self.call is not None:
            # A retry sends the very bytes again; a new call at least has a boundary of its own in them.
            return self._every_attempt and self.call.body == call.body
        if not self._applies(call):
            return False
        self.call = call
        self._met.set()
        return True

    def wait_until_met(self) -> Call:
        assert self._met.wait(PATIENCE_SECONDS), f"no call met the order: {self.act.value}"
        assert self.call
        return self.call

    def release(self) -> None:
        """Lets a held call go on."""
        self._released.set()

    def hold(self) -> None:
        self._released.wait()


def nth(number: int, applies: Applies) -> Applies:
    """The n-th of the calls for which something holds."""
    seen: list[Call] = []

    def is_it(call: Call) -> bool:
        if applies(call):
            seen.append(call)
        return applies(call) and len(seen) == number

    return is_it
