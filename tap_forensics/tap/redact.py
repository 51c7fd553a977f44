"""Describes the body of an error with words from the lists below only, never with text from the body.

The other side may echo the credentials: whole, truncated, wrapped, in any encoding. A search for them cannot
know all forms. So the body is only compared with the sentences and phrases listed here, and logs, errors and
the state get our own copy of those that it contains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus

# TAP's own, as documented; the longer form comes first. discovery/window_reader.py recognizes them.
_SENTENCES = (
    "The requested interval is too short. Requests must be for at least 30.00s of data",
    "The requested interval is too short.",
    "The requested start time is too far into the past. Requests for information up to 7.00d are accepted",
    "The requested start time is too far into the past.",
    "The requested interval is still current.",
    '{"message":"HTTP 404 Not Found"}',
)
# Phrases of proxies, gateways and web servers, each of two words or more, as `_plain` returns text.
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
_MAX_PHRASES = 3
_MIN_WORD_CHARACTERS = 4
_KIB = 1024


def describe(body: bytes, credentials: Iterable[str], *, cut: bool) -> str:
    """TAP's own sentence if the body contains one; else the body's kind, rough size and known phrases.

    `cut`: `body` is only the start of the whole body.
    """
    if not body.strip():
        return "(no body)"
    text = body.decode("utf-8", "replace").casefold()
    plain = _plain(text)
    for sentence in _SENTENCES:
        if _contains(plain, _plain(sentence.casefold())):
            return sentence
    kind = f"{_kind(text)} ({_size(len(body), cut)})"
    phrases = list(_phrases(plain, [credential.casefold() for credential in credentials]))
    quoted = ", ".join(f'"{phrase}"' for phrase in phrases[:_MAX_PHRASES])
    return f"{kind} with the words {quoted}" if quoted else f"{kind}, not shown"


def describe_failure(error: Exception) -> str:
    """The error's class, and the status of a proxy that refused the request; never the error's text."""
    kind = type(error).__name__
    match = re.search(r"Tunnel connection failed: ([1-5][0-9]{2})\b", str(error))
    if not match:
        return kind
    status = int(match[1])
    phrases = {known.value: f" {known.phrase}" for known in HTTPStatus}
    return f"{kind}: the proxy answered {status}{phrases.get(status, '')}"


def _plain(text: str) -> str:
    """The words (letters and digits) of a text without its tags, separated by one space."""
    return " ".join(re.findall(r"[a-z0-9]+", re.sub(r"<[^<>]*>", " ", text)))


def _contains(plain: str, words: str) -> bool:
    return f" {words} " in f" {plain} "


def _phrases(plain: str, credentials: list[str]) -> Iterator[str]:
    found = [
        phrase for phrase in _PHRASES if _contains(plain, phrase) and not _resembles(phrase, credentials)
    ]
    for phrase in found:
        if not any(phrase in other for other in found if other != phrase):
            yield phrase


def _resembles(phrase: str, credentials: list[str]) -> bool:
    """Whether the phrase could be an echo of a credential: they have a word in common."""
    words = [word for word in phrase.split() if len(word) >= _MIN_WORD_CHARACTERS]
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
