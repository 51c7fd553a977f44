"""What is said of an error's body: known sentences and phrases in our own copy, nothing else."""

from __future__ import annotations

import base64

import pytest

from tap_forensics.tap.redact import describe, describe_failure

CREDENTIALS = ("demo-principal", "demo-secret")
SHORT = "The requested interval is too short. Requests must be for at least 30.00s of data"
FAR = "The requested start time is too far into the past. Requests for information up to 7.00d are accepted"
CURRENT = "The requested interval is still current."


def said(body: str | bytes, *credentials: str, cut: bool = False) -> str:
    data = body.encode() if isinstance(body, str) else body
    return describe(data, credentials or CREDENTIALS, cut=cut)


@pytest.mark.parametrize("sentence", [SHORT, FAR, CURRENT, '{"message":"HTTP 404 Not Found"}'])
def test_a_sentence_of_tap_is_told_as_it_is_documented(sentence: str) -> None:
    assert said(sentence) == sentence
    assert said(f'{{"message": "{sentence.upper()}"}}\r\n') == sentence
    assert said(f"demo-secret {sentence} demo-principal", sentence) == sentence


def test_a_sentence_with_another_number_is_told_without_its_number() -> None:
    assert said(SHORT.replace("30.00s", "60.00s")) == "The requested interval is too short."
    assert said(FAR.replace("7.00d", "9.00d")) == "The requested start time is too far into the past."


def test_half_a_sentence_is_none() -> None:
    assert said("your password is too short") == "text (under 1 KiB), not shown"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<html><h1>407 Proxy Authentication Required</h1>", '"proxy authentication required"'),
        ("<html><title>503</title>\n<p>Service<br>\n Unavailable.</p>", '"service unavailable"'),
        ("<h1>502 Bad Gateway</h1>nginx, try again later", '"bad gateway", "try again later"'),
    ],
)
def test_a_proxys_page_is_told_by_its_known_phrases(page: str, words: str) -> None:
    assert said(page) == f"HTML (under 1 KiB) with the words {words}"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "(no body)"),
        (b" \r\n", "(no body)"),
        (b"no such thing", "text (under 1 KiB), not shown"),
        (b"\xff\x00\x1b[31m", "text (under 1 KiB), not shown"),
        (b'\xef\xbb\xbf {"error": "x"}', "JSON (under 1 KiB), not shown"),
        (b"[" * 3000, "JSON (about 3 KiB), not shown"),
        (b"x" * 1024, "text (about 1 KiB), not shown"),
    ],
)
def test_of_anything_else_kind_and_rough_size_are_told(body: bytes, told: str) -> None:
    assert said(body) == told


def test_a_body_that_goes_on_is_told_to_be_larger() -> None:
    assert said("<" * 4096, cut=True) == "HTML (over 4 KiB), not shown"


@pytest.mark.parametrize(
    ("principal", "secret", "echo"),
    [
        ("bad", "gateway-7", "bad:gateway-7"),
        ("error", "ab", "internal server error ab"),
        ("unavailable", "x1", "Service Unavailable"),
        ("Rate", "limit.Exceeded", "rate LIMIT exceeded"),
        ("demo-principal", "bad gateway timeout", "bad gateway timeout"),
    ],
)
def test_a_credential_of_words_is_no_phrase(principal: str, secret: str, echo: str) -> None:
    assert said(echo, principal, secret) == "text (under 1 KiB), not shown"


def test_a_token_that_holds_a_phrase_is_not_told() -> None:
    token = base64.b64encode(b"principal:secret").decode()
    assert said(f"Basic {token}, bad gateway", "principal", "secret", f"{token}gateway").endswith("not shown")


def test_many_phrases_are_cut_short_and_one_within_another_is_not_told_twice() -> None:
    many = "proxy authentication required, bad gateway, access denied, not found, rate limit"
    assert said(many) == (
        'text (under 1 KiB) with the words "proxy authentication required", "access denied", "bad gateway"'
    )


def test_a_hostile_body_takes_no_time() -> None:
    for body in ("<" * 4096, "<>" * 2048, "a " * 2048, "<a" * 2048):
        assert said(body, cut=True).endswith("not shown")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("demo-secret", "OSError"),
        (
            "Tunnel connection failed: 407 demo-secret",
            "OSError: the proxy answered 407 Proxy Authentication Required",
        ),
        ("Tunnel connection failed: 499 demo-secret", "OSError: the proxy answered 499"),
        ("Tunnel connection failed: 4077 demo-secret", "OSError"),
    ],
)
def test_a_failure_is_told_by_its_kind_and_the_proxys_status(text: str, told: str) -> None:
    assert describe_failure(OSError(text)) == told
