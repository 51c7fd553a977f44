"""Addresses, hashes, ports and so on from TAP: the value if it is valid, otherwise None."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from typing import Any

from tap_forensics.clock import parse_iso

LONGEST_VALUE = 8192
_HIGHEST_PORT = 65535
_SHA256, _MD5 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{32}")
_HOST = re.compile(r"(?=.{1,253}\.?$)(?:[\w-]{1,63}\.)+[\w-]{2,63}\.?")


def text(value: Any) -> str | None:
    """A text that is not blank, of a length that a person or a tool can use."""
    return value if isinstance(value, str) and value.strip() and len(value) <= LONGEST_VALUE else None


def ip(value: Any) -> str | None:
    """In canonical form. An address with a zone (`fe80::1%eth0`) means nothing on another machine."""
    if not isinstance(value, str) or "%" in value:
        return None
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        return None


def port(value: Any) -> int | None:
    """TAP sends a number or a text."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,5}", value) else value
    sound = isinstance(number, int) and not isinstance(number, bool) and 0 < number <= _HIGHEST_PORT
    return number if sound else None


def sha256(value: Any) -> str | None:
    return _digest(value, _SHA256)


def md5(value: Any) -> str | None:
    return _digest(value, _MD5)


def host(value: Any) -> str | None:
    """A domain name, in lower case without the final dot; not an address."""
    named = isinstance(value, str) and _HOST.fullmatch(value) and ip(value) is None
    return value.lower().removesuffix(".") if named else None


def moment(value: Any) -> datetime | None:
    try:
        return parse_iso(value) if isinstance(value, str) else None
    except ValueError:
        return None


def texts(value: Any) -> list[Any]:
    """A single value counts as a list of one."""
    return value if isinstance(value, list) else [value]


def _digest(value: Any, pattern: re.Pattern[str]) -> str | None:
    lower = value.lower() if isinstance(value, str) else ""
    return lower if pattern.fullmatch(lower) else None
