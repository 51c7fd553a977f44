"""Validators of settings: text → value. Each raises ValueError with what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

from tap_forensics.clock import parse_iso


def int_range(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"a whole number from {low} to {high}")

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(" or ".join(words))

    return parse


def on_off(text: str) -> bool:
    return one_of("on", "off")(text) == "on"


def bucket(text: str) -> str:
    # https://cloud.google.com/storage/docs/buckets#naming
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", text):
        return text
    raise ValueError("the bare name of a bucket, such as my-tap-logs (no gs://, no folder)")


def prefix(text: str) -> str:
    trimmed = text.strip("/")
    if "//" in trimmed or not trimmed.isprintable() or len(trimmed.encode()) > 512:
        # A SecOps Cloud Storage feed does not read below an empty folder name.
        raise ValueError("a folder path without empty parts (//) or control characters, 512 bytes at most")
    return trimmed


def folder(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("the absolute path of a folder, such as /tenants")
    return text


def object_name(text: str) -> str:
    if text.endswith("/") or not text.isprintable() or len(text.encode()) > 1000:
        raise ValueError("an object name without control characters or a closing slash, 1,000 bytes at most")
    return text


_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
_PORT = r"(?::[1-9][0-9]{0,4})?"


def api_base(text: str) -> str:
    if re.fullmatch(rf"https?://{_HOST}{_PORT}(?:/[A-Za-z0-9._~/-]*)?", text) and _has_host_and_port(text):
        parts = urlsplit(text)
        if parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1"):
            return text.rstrip("/")
    raise ValueError("an https address without user, query or fragment (http only on a loopback host)")


def _has_host_and_port(address: str) -> bool:
    """Whether it has a usable host and port: a valid IPv6 address in brackets, a port in range."""
    try:
        return bool(urlsplit(address).hostname) and urlsplit(address).port != 0
    except ValueError:
        return False


def principal(text: str) -> str:
    if ":" in text or not text.isprintable():
        # RFC 7617: the first colon ends the user name.
        raise ValueError("a service principal without colon or control characters")
    return text


def secret(text: str) -> str:
    if not text.isprintable():
        raise ValueError("one line of text without control characters")
    return text


def proxy(text: str) -> str:
    address = text if "://" in text else f"http://{text}"
    if re.fullmatch(rf"https?://(?:[^\x00-\x20\x7f/?#]*@)?{_HOST}{_PORT}/?", address) and _has_host_and_port(
        address
    ):
        return address
    raise ValueError("the address of an HTTP proxy, such as http://proxy.example.com:3128")


def csv(*words: str) -> Callable[[str], tuple[str, ...]]:
    """Some of these words, separated by commas; duplicates are removed, the order is kept."""

    def parse(text: str) -> tuple[str, ...]:
        if not text:
            return ()
        parts = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        if set(parts) <= set(words):
            return parts
        raise ValueError(f"one or more of {', '.join(words)}, separated by commas")

    return parse


def timestamp(text: str) -> datetime:
    try:
        return parse_iso(text)
    except ValueError:
        raise ValueError("a time in ISO 8601, such as 2026-11-21T20:00:00Z") from None
