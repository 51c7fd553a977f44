"""Whatever the other side echoes, in whatever encoding: no piece of a credential in what is said of it."""

from __future__ import annotations

import base64
import html
import json
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_forensics.clock import Clock, Deadline
from tap_forensics.config.settings import load_settings
from tap_forensics.errors import CollectorError
from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.tap_api import TapServer
from tap_forensics.sandbox.world import World
from tap_forensics.tap import redact
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota
from tap_forensics.tap.redact import describe

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
REPORTS = "/v2/forensics"
PIECE = 4
FRAME = 'TAP answered with the words (no body), not shown text JSON HTML (under 1 KiB) (about over "'
OURS = " ".join([FRAME, *redact._SENTENCES, *redact._PHRASES]).casefold()


def _aligned(text: str) -> list[str]:
    """Base64 of the text at each of the three places where it can begin within a longer one."""
    return [base64.b64encode(b" " * ahead + text.encode()).decode() for ahead in range(3)]


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper": str.upper,
    "lower": str.lower,
    "reversed case": str.swapcase,
    "base64": lambda text: " ".join(_aligned(text)),
    "base64, no padding": lambda text: " ".join(each.rstrip("=") for each in _aligned(text)),
    "base64, wrapped": lambda text: "\r\n".join(textwrap.wrap(_aligned(text)[0], 5)),
    "base64, cut": lambda text: _aligned(text)[0][1:-5],
    "base64, for a URL": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64, twice": lambda text: _aligned(_aligned(text)[0])[0],
    "hex": lambda text: text.encode().hex(),
    "percent": lambda text: quote(text, safe=""),
    "percent, each": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "html": html.escape,
    "html, each": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "html, each in hex": lambda text: "".join(f"&#x{ord(char):x};" for char in text),
    "json": lambda text: json.dumps(text)[1:-1],
    "json, each": lambda text: "".join(f"\\u{ord(char):04x}" for char in text if ord(char) < 0x10000),
}

_printable = st.characters(exclude_categories=["C", "Z"])
secrets = st.text(_printable, min_size=PIECE, max_size=40)
principals = st.text(_printable.filter(lambda char: char != ":"), min_size=PIECE, max_size=40)
around = st.one_of(st.text(max_size=60), st.sampled_from([*redact._SENTENCES, *redact._PHRASES]))


def pieces(principal: str, secret: str) -> Iterator[str]:
    """What may not be told: four characters of a credential, of their token, or of any encoding of these."""
    token = base64.b64encode(f"{principal}:{secret}".encode()).decode()
    forms = [encode(text) for text in (principal, secret, token) for encode in ENCODINGS.values()]
    for form in {form.casefold() for form in forms}:
        for start in range(len(form) - PIECE + 1):
            yield form[start : start + PIECE]


def shown_of(principal: str, secret: str, said: str) -> list[str]:
    folded = said.casefold()
    return [piece for piece in pieces(principal, secret) if piece in folded and piece not in OURS]


@given(principals, secrets, around, around, st.sampled_from(list(ENCODINGS)), st.integers(1, 20))
def test_no_piece_of_a_credential_is_told_however_it_is_echoed(
    principal: str, secret: str, before: str, after: str, encoding: str, times: int
) -> None:
    token = base64.b64encode(f"{principal}:{secret}".encode()).decode()
    encode = ENCODINGS[encoding]
    echo = f"{before}{encode(principal)}:{encode(secret)}{after} {encode(token)}" * times
    sentence = describe(echo.encode()[:4096], (principal, secret, token), cut=len(echo) > 4096)
    assert shown_of(principal, secret, sentence) == []


@given(st.sampled_from(redact._PHRASES), st.sampled_from(redact._PHRASES), st.data())
def test_no_phrase_is_told_that_a_credential_is_a_part_of(one: str, other: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(one) - 1))
    secret = one[start : data.draw(st.integers(start + 1, len(one)))].strip() or "x"
    echo = f"{one} {secret} {secret.upper()} {other}"
    sentence = describe(echo.encode(), ("principal-of-ours", secret), cut=False)
    assert not [folded for folded in sentence.split('"')[1::2] if secret in folded]


@given(st.binary(max_size=600) | st.text(max_size=600).map(str.encode), secrets)
def test_what_is_told_is_of_our_own_words_alone(body: bytes, secret: str) -> None:
    sentence = describe(body, (secret,), cut=False)
    assert sentence in redact._SENTENCES or set(sentence.split('"')[1::2]) <= set(redact._PHRASES)
    assert sentence in redact._SENTENCES or sentence.startswith(("(no body)", "text (", "JSON (", "HTML ("))
    assert len(sentence) < 200


@pytest.fixture(scope="module")
def server() -> Iterator[TapServer]:
    world = World(1, start=NOW - timedelta(hours=1), end=NOW, messages_per_hour=0, clicks_per_hour=0)
    with TapServer(world, clock=lambda: NOW) as server:
        yield server


@settings(deadline=None)
@given(
    secrets,
    st.sampled_from([302, 400, 401, 403, 404, 405, 408, 429, 500, 503]),
    st.text(max_size=60),
    st.sampled_from(list(ENCODINGS)),
    st.integers(1, 20),
)
def test_no_error_of_the_client_holds_a_piece_of_a_credential(
    server: TapServer, secret: str, status: int, text: str, encoding: str, times: int
) -> None:
    principal, encode, clock = "Principal/0192837465", ENCODINGS[encoding], Clock()
    token = base64.b64encode(f"{principal}:{secret}".encode()).decode()
    echo = f"{text}{encode(principal)} {encode(secret)} {encode(token)}{text}" * times
    server.faults.add(REPORTS, Fault("status", status=status, body=echo.encode()))
    environ = {"GCS_BUCKET": "demo-bucket", "TAP_PRINCIPAL": principal, "TAP_SECRET": secret}
    loaded = load_settings(environ | {"TAP_API_BASE": server.url})
    quota = Quota({}, {SIEM: None, FORENSICS: None})
    with (
        TapClient(loaded, clock, Deadline.after(clock, 60), quota) as tap,
        pytest.raises(CollectorError) as met,
    ):
        tap.forensics("t")
    if status not in (401, 403, 429):  # these have sentences of their own
        assert shown_of(principal, secret, str(met.value)[len("TAP answered 000: ") :]) == []
