"""Evidence as text for the eye: every character visible, nothing that a mail program makes a link of."""

from __future__ import annotations

import re
from typing import Any

import msgspec

LONGEST_SHOWN = 2000
_SCHEME = re.compile(r"\b([a-z][a-z0-9+.-]{1,20})(://)([^\s/?#\\]*)", re.IGNORECASE)
_ACTIVE = re.compile(r"\b(javascript|vbscript|data|file|mailto):", re.IGNORECASE)
_LOOKS_LIKE_HOST = re.compile(r"(?:[^\s/@]+@)?[\w-]+(?:\.[\w-]+)+\.?(?=$|[/:?#])")
_URLS, _HOSTS = {"url"}, {"host", "domain", "domains", "cnames", "nameservers", "nameserversList"}
_ADDRESSES = {"ip", "ips"}


def visible(text: str, limit: int = LONGEST_SHOWN) -> str:
    """At most `limit` characters; controls, line ends, bidi and zero-width marks as ⟨U+202E⟩."""
    shown = "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in text[:limit])
    return f"{shown}… ({len(text) - limit:,} more)" if len(text) > limit else shown


def defanged(text: str) -> str:
    """`hxxps://evil[.]example/a.b`: wherever a URL stands in a text, and a host name at its beginning."""
    text = _SCHEME.sub(lambda m: _scheme(m[1]) + m[2] + _dotless(m[3]), text)
    text = _ACTIVE.sub(r"\1[:]", text)
    return (
        _LOOKS_LIKE_HOST.sub(lambda m: _dotless(m[0]), text, count=1)
        if _LOOKS_LIKE_HOST.match(text)
        else text
    )


def shown_value(name: str, value: Any) -> str:
    """One field of evidence, named `name`: texts as they are, lists joined, whatever else as JSON."""
    if isinstance(value, str):
        return visible(_defanged_as(name, value[: LONGEST_SHOWN * 2]))
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return visible(", ".join(_defanged_as(name, item) for item in value))
    return visible(defanged(msgspec.json.encode(value).decode()))


def shown_indicator(kind: str, value: str) -> str:
    return visible(_defanged_as(kind, value))


def _defanged_as(name: str, text: str) -> str:
    if name in _ADDRESSES:
        return _dotless(text).replace(":", "[:]")
    if name in _HOSTS:
        return _dotless(text)
    if name in _URLS and "://" not in text:
        host, slash, rest = text.partition("/")
        return _ACTIVE.sub(r"\1[:]", _dotless(host) + slash + rest)
    return defanged(text)


def _scheme(name: str) -> str:
    return name.replace("tt", "xx").replace("TT", "XX") if name[:1] in "hH" else name.replace("t", "x")


def _dotless(host: str) -> str:
    return host.replace(".", "[.]")
