"""Indicators in an item of evidence: values to search for or to block."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tap_forensics.log import escape_unprintable
from tap_forensics.report import fields

INDICATOR_TYPES = ("sha256", "md5", "url", "domain", "ip", "registry", "mutex", "path")

_WITH_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_HIVE = re.compile(r"(HKEY_|HK[A-Z]{1,2}\\|\\?REGISTRY\\)", re.IGNORECASE)
# The screenshot that TAP made, and the program that holds the mutex.
_NO_INDICATORS = {("screenshot", "url"), ("mutex", "path")}


class Indicator(NamedTuple):
    """`kind` is one of `INDICATOR_TYPES`; `parts` is one text, or key and value name of a registry entry.

    `field` is where it was found, such as `dns.ips`: many hosts may share such an address.
    """

    kind: str
    parts: tuple[str, ...]
    field: str

    @property
    def value(self) -> str:
        return "\\".join(self.parts)


def indicators_in(item: dict[str, Any]) -> Iterator[Indicator | None]:
    """The indicators of one item, whatever its verdict; None for each value that is not valid."""
    kind, what = item.get("type"), item.get("what")
    if not isinstance(kind, str) or not isinstance(what, dict):
        return
    for name, given in what.items():
        read = _READERS.get(name)
        if read is None or (kind, name) in _NO_INDICATORS:
            continue
        for value in fields.texts(given):
            found = read(kind, value, what) if value not in (None, "") else _NOTHING
            if found is None or found[0]:
                yield (
                    Indicator(found[0], found[1:], f"{escape_unprintable(kind, 80)}.{name}")
                    if found
                    else None
                )


_Found = tuple[str, ...] | None
_NOTHING = ("",)


def _sha256(_: str, value: Any, __: Any) -> _Found:
    return _one("sha256", fields.sha256(value))


def _md5(_: str, value: Any, __: Any) -> _Found:
    return _one("md5", fields.md5(value))


def _url(_: str, value: Any, __: Any) -> _Found:
    """TAP sometimes omits the scheme; a `javascript:` or `data:` URL leads to no host."""
    text = _plain(value)
    if text is None or re.search(r"\s", text):
        return None
    leads = _WITH_SCHEME.fullmatch(text) or fields.host(re.split("[/:?#]", text, maxsplit=1)[0])
    return ("url", text) if leads else None


def _ip(_: str, value: Any, __: Any) -> _Found:
    return _one("ip", fields.ip(value))


def _host(_: str, value: Any, __: Any) -> _Found:
    return _one("ip", fields.ip(value)) or _one("domain", fields.host(value))


def _path(kind: str, value: Any, what: Any) -> _Found:
    text = _plain(value)
    return _url(kind, text, what) if text and _WITH_SCHEME.match(text) else _one("path", text)


def _key(kind: str, value: Any, what: dict[str, Any]) -> _Found:
    """Every machine has a Run key: only with the name of a value is it an indicator."""
    text = _plain(value)
    if kind != "registry":
        return ("registry", text) if text and _HIVE.match(text) else _NOTHING
    name = _plain(what.get("name"))
    return ("registry", text, *([name] if name else [])) if text else None


def _name(kind: str, value: Any, __: Any) -> _Found:
    return _one("mutex", _plain(value)) if kind == "mutex" else _NOTHING


_READERS: dict[str, Callable[[str, Any, dict[str, Any]], _Found]] = {
    "sha256": _sha256,
    "md5": _md5,
    "url": _url,
    "ip": _ip,
    "ips": _ip,
    "host": _host,
    "domain": _host,
    "domains": _host,
    "cnames": _host,
    "path": _path,
    "key": _key,
    "name": _name,
}


def _one(kind: str, value: str | None) -> _Found:
    return (kind, value) if value else None


def _plain(value: Any) -> str | None:
    """Without control characters: a line end pasted into a terminal would start a command."""
    text = fields.text(value)
    return text if text and not any(unicodedata.category(c) == "Cc" for c in text) else None
