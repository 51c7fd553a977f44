"""Evidence as text for the eye: every character visible, nothing that a mail program makes a link of."""

from __future__ import annotations

import re
from typing import Any

import msgspec

LONGEST_SHOWN = 2000
_LONGEST_LABEL = 80
# The scheme may be left out, as browsers allow.
_URL = re.compile(r"(?:\b([a-z][a-z0-9+.-]{1,20}):)?//([^\s/?#\\]*)", re.IGNORECASE)
_ACTIVE = re.compile(r"\b(javascript|vbscript|data|file|mailto):", re.IGNORECASE)
# Or like an address; not like a version.
_LOOKS_LIKE_HOST = re.compile(
    r"(?:[^\s/@]+@)?(?:(?:[\w-]+\.)+[^\W\d_][\w-]*\.?|\d+\.\d+\.\d+\.\d+)(?=$|[/:?#])"
)
_URLS, _HOSTS = {"url"}, {"host", "domain", "domains", "cnames", "nameservers", "nameserversList"}
_ADDRESSES = {"ip", "ips"}


def visible(text: str, limit: int = LONGEST_SHOWN) -> str:
    """At most `limit` characters; controls, line ends, bidi and zero-width marks as ⟨U+202E⟩."""
    shown = "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in text[:limit])
    return f"{shown}… ({len(text) - limit:,} more)" if len(text) > limit else shown


def defanged(text: str) -> str:
    """`hxxps://evil[.]example/a.b`: wherever a URL stands in a text, and a host name at its beginning."""
    text = _URL.sub(lambda m: f"{_scheme(m[1]) if m[1] else ''}//{_dotless(m[2])}", text)
    text = _ACTIVE.sub(r"\1[:]", text)
    return (
        _LOOKS_LIKE_HOST.sub(lambda m: _dotless(m[0]), text, count=1)
        if _LOOKS_LIKE_HOST.match(text)
        else text
    )


def label(text: str) -> str:
    """A name, a type, a status, an id: short, and no URL either."""
    return visible(defanged(text), _LONGEST_LABEL)


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
    if "://" in text or _ACTIVE.search(text) or name not in _URLS | _HOSTS | _ADDRESSES:
        return defanged(text)
    host, slash, rest = text.partition("/") if name in _URLS else (text, "", "")
    return (_dotless(host) + slash + rest).replace(":", "[:]" if name in _ADDRESSES else ":")


def _scheme(name: str) -> str:
    return ("fxp" if name.lower() == "ftp" else name.replace("tt", "xx").replace("TT", "XX")) + ":"


def _dotless(host: str) -> str:
    return host.replace(".", "[.]")
