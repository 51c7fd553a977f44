"""Evidence as displayed text: every character visible, nothing that a mail program turns into a link."""

from __future__ import annotations

import re
from typing import Any

import msgspec

LONGEST_SHOWN = 2000
_LONGEST_LABEL = 80
_MOST_ITEMS = 100
# The scheme is optional, as in browsers.
_URL = re.compile(r"(?:\b([a-z][a-z0-9+.-]{1,20}):)?//([^\s/?#\\]*)", re.IGNORECASE)
_ACTIVE = re.compile(r"\b(javascript|vbscript|data|file|mailto):", re.IGNORECASE)
# Or like an address; not like a version.
_LOOKS_LIKE_HOST = re.compile(
    r"(?:[^\s/@]+@)?(?:(?:[\w-]+\.)+[^\W\d_][\w-]*\.?|\d+\.\d+\.\d+\.\d+)(?=$|[/:?#])"
)
# Endings that are not top-level domains: such a name is a file, not a host.
_FILE = re.compile(
    r"\.(?:aspx?|bat|bin|bmp|cfg|chm|cmd|css|csv|dat|dll|doc[mx]?|dotm|eml|exe|gif|gz|hta|html?|ico|img|ini|"
    r"iso|jar|jpe?g|jse?|json|jsp|lnk|log|lua|ms[gi]|msix|ocx|od[st]|pdf|php|png|ppam|ppt[mx]?|ps1|rar|reg|rtf|"
    r"scr|svg|sys|tar|tmp|txt|url|vb[es]|vhdx?|wsf|xlam|xll|xls[bmx]?|xml|xsl)",
    re.IGNORECASE,
)
# Fields and kinds with names of things on a machine; a URL in them has its scheme.
_LOCAL = {"path", "key", "registry", "mutex"}
_URLS, _HOSTS = {"url"}, {"host", "domain", "domains", "cnames", "nameservers", "nameserversList"}
_ADDRESSES = {"ip", "ips"}


def visible(text: str) -> str:
    """Controls, line ends, bidi and zero-width marks as ⟨U+202E⟩."""
    return "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in text)


def defanged(text: str) -> str:
    """`hxxps://evil[.]example/a.b`: every URL in a text, and a host name (not a file name) at its start."""
    text = _links_defanged(text)
    host = _LOOKS_LIKE_HOST.match(text)
    if host is None or _FILE.fullmatch(host[0], host[0].rfind(".")):
        return text
    return _dotless(host[0]) + text[host.end() :]


def _links_defanged(text: str) -> str:
    text = _URL.sub(lambda m: f"{_scheme(m[1]) if m[1] else ''}//{_dotless(m[2])}", text)
    return _ACTIVE.sub(r"\1[:]", text)


def label(text: str) -> str:
    """A name, a type, a status, an id: short, and defanged."""
    return _shown("", text, _LONGEST_LABEL)


def shown_value(name: str, value: Any) -> str:
    """One field of evidence: texts unchanged, lists joined, everything else as JSON."""
    if isinstance(value, str):
        return _shown(name, value, LONGEST_SHOWN)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        rest = f", … ({len(value) - _MOST_ITEMS:,} more)" if len(value) > _MOST_ITEMS else ""
        return ", ".join(_shown(name, item, LONGEST_SHOWN) for item in value[:_MOST_ITEMS]) + rest
    return _shown("", msgspec.json.encode(value).decode(), LONGEST_SHOWN)


def shown_indicator(kind: str, value: str) -> str:
    return _shown(kind, value, LONGEST_SHOWN)


def _shown(name: str, text: str, limit: int) -> str:
    """The first `limit` characters, and the number of the others."""
    rest = f"… ({len(text) - limit:,} more)" if len(text) > limit else ""
    return visible(_defanged_as(name, text[:limit])) + rest


def _defanged_as(name: str, text: str) -> str:
    if name in _LOCAL and "/" not in text:
        return _links_defanged(text)
    if "://" in text or _ACTIVE.search(text) or name not in _URLS | _HOSTS | _ADDRESSES:
        return defanged(text)
    host, slash, rest = text.partition("/") if name in _URLS else (text, "", "")
    return (_dotless(host) + slash + rest).replace(":", "[:]" if name in _ADDRESSES else ":")


def _scheme(name: str) -> str:
    return ("fxp" if name.lower() == "ftp" else name.replace("tt", "xx").replace("TT", "XX")) + ":"


def _dotless(host: str) -> str:
    return host.replace(".", "[.]")
