"""What is said of the body of an error: only words from the lists below, never a piece of the body itself.

The other side may echo what it was sent: whole, cut, wrapped, in any encoding. No search for the credentials
can know them all. So the body is only compared with the sentences and phrases listed here, and our own copy
of those that it holds is what log, exception and state get.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus

# TAP's own, as documented; the longer form comes first. asking.py recognizes them.
_SENTENCES = (
    "The requested interval is too short. Requests must be for at least 30.00s of data",
    "The requested interval is too short.",
    "The requested start time is too far into the past. Requests for information up to 7.00d are accepted",
    "The requested start time is too far into the past.",
    "The requested interval is still current.",
    '{"message":"HTTP 404 Not Found"}',
)
# What proxies, gateways and web servers say; each of two words or more, as they stand in `_plain` text.
_PHRASES = (
    "proxy authentication required",
    "authentication required",
    "authorization required",
    "access denied",
    "access is denied",
    "permission denied",
    "policy violation",
    "bad gateway",
    "gateway timeout",
    "gateway time out",
    "service unavailable",
    "service temporarily unavailable",
    "temporarily unavailable",
    "try again later",
    "under maintenance",
    "scheduled maintenance",
    "internal server error",
    "server error",
    "no healthy upstream",
    "upstream connect error",
    "upstream request timeout",
    "connection refused",
    "connection reset",
    "connection timed out",
    "request timeout",
    "request timed out",
    "request entity too large",
    "request header too large",
    "host not found",
    "could not resolve host",
    "unable to resolve host",
    "dns lookup failed",
    "certificate verify failed",
    "certificate has expired",
    "ssl handshake failed",
    "too many requests",
    "rate limit",
    "quota exceeded",
    "limit exceeded",
    "bad request",
    "invalid request",
    "invalid parameter",
    "missing parameter",
    "unknown parameter",
    "required parameter",
    "not found",
    "no longer available",
    "method not allowed",
    "not implemented",
    "not supported",
    "payment required",
    "moved permanently",
    "moved temporarily",
    "the document has moved",
    "please sign in",
    "please log in",
)
_MOST_PHRASES = 3
_SHORTEST_WORD = 4
_KIB = 1024


def describe(body: bytes, credentials: Iterable[str], *, cut: bool) -> str:
    """TAP's own sentence if the body holds one; else the body's kind and rough size, and known phrases.

    `cut`: there is more of the body than this.
    """
    if not body.strip():
        return "(no body)"
    text = body.decode("utf-8", "replace").casefold()
    plain = _plain(text)
    for sentence in _SENTENCES:
        if _holds(plain, _plain(sentence.casefold())):
            return sentence
    kind = f"{_kind(text)} ({_size(len(body), cut)})"
    found = list(_phrases(plain, [credential.casefold() for credential in credentials]))
    told = ", ".join(f'"{phrase}"' for phrase in found[:_MOST_PHRASES])
    return f"{kind} with the words {told}" if told else f"{kind}, not shown"


def describe_failure(error: Exception) -> str:
    """The kind of a failed request, and the status of a proxy that refused it; not its text."""
    kind = type(error).__name__
    found = re.search(r"Tunnel connection failed: ([1-5][0-9]{2})\b", str(error))
    if not found:
        return kind
    status = int(found[1])
    known = {one.value: f" {one.phrase}" for one in HTTPStatus}
    return f"{kind}: the proxy answered {status}{known.get(status, '')}"


def _plain(text: str) -> str:
    """The letters and digits, in words with one space between them, without tags."""
    return " ".join(re.findall(r"[a-z0-9]+", re.sub(r"<[^<>]*>", " ", text)))


def _holds(plain: str, words: str) -> bool:
    return f" {words} " in f" {plain} "


def _phrases(plain: str, credentials: list[str]) -> Iterator[str]:
    found = [phrase for phrase in _PHRASES if _holds(plain, phrase) and not _recalls(phrase, credentials)]
    for phrase in found:
        if not any(phrase in other for other in found if other != phrase):
            yield phrase


def _recalls(phrase: str, credentials: list[str]) -> bool:
    """Whether an echo of one of them could be why the phrase stands there: they have a word in common."""
    words = [word for word in phrase.split() if len(word) >= _SHORTEST_WORD]
    return any(
        credential in phrase or any(word in credential for word in words) for credential in credentials
    )


def _kind(text: str) -> str:
    start = text.lstrip("\ufeff \t\r\n")[:1]
    return {"<": "HTML", "{": "JSON", "[": "JSON"}.get(start, "text")


def _size(length: int, cut: bool) -> str:
    if cut:
        return f"over {length // _KIB} KiB"
    return "under 1 KiB" if length < _KIB else f"about {round(length / _KIB)} KiB"
