"""Each reason why SecOps does not answer becomes one sentence, without a word of the other side."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from google.oauth2.credentials import Credentials

from tap_forensics.clock import Clock
from tap_forensics.sandbox.processes import free_port
from tap_forensics.secops.connection import Instance, Limits, Secops, Transport, connect
from tap_forensics.secops.failures import Question, SecopsFailed
from tap_forensics.secops.feeds import SecopsFeed, feed_account, list_feeds
from tests.support.loopback import Answering, answer, serving
from tests.support.secops_api import CUSTOMER, PROJECT, REGION, SecopsApi, feed, secops_api

HOST = f"{REGION}-chronicle.googleapis.com"


@pytest.fixture
def api() -> Iterator[SecopsApi]:
    with secops_api() as api:
        yield api


def instance(url: str | None) -> Instance:
    return Instance(CUSTOMER, PROJECT, REGION, url)


def failure(url: str, limits: Limits | None = None, clock: Clock | None = None) -> SecopsFailed:
    with pytest.raises(SecopsFailed) as caught, connect(instance(url), clock or Clock(), limits) as secops:
        list_feeds(secops)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def feeds_of(api: SecopsApi) -> tuple[list[SecopsFeed], int]:
    with connect(instance(api.url), Clock()) as secops:
        return list_feeds(secops)


@pytest.mark.parametrize(
    ("status", "words", "remedy", "final"),
    [
        (401, "does not accept the Google credentials (401)", "gcloud auth application-default login", True),
        (403, "may not do that (403)", "roles/chronicle.viewer or one with chronicle.feeds.list", False),
        (404, "knows no such instance or resource (404)", "--customer-id, --project-id and --region", False),
        (429, "quota of the Chronicle API is used up (429)", "wait some minutes", True),
        (400, "rejected the request (400)", "update the extra", False),
        (302, "redirects, which is never followed (302)", "sign-in page", False),
        (409, "rejected the request (409)", "--customer-id", False),
        (503, "is in trouble (503)", "try again later", False),
    ],
)
def test_each_status_has_its_sentence(
    api: SecopsApi, status: int, words: str, remedy: str, final: bool
) -> None:
    api.fails["feeds"] = (status, b'{"error": {"message": "evidence of ann@example.com"}}')
    failed = failure(api.url)
    assert words in failed.words
    assert remedy in failed.remedy
    assert failed.final == final
    assert "ann@" not in failed.words + failed.remedy
    # Neither a redirect nor a retry of the client's own.
    assert [call.path for call in api.calls] == ["feeds"]


@pytest.mark.parametrize(
    "body", [b"<html>Sign in</html>", b"", b"[]", b"3", b'{"feeds": 3}', b'{"a":' * 100_000]
)
def test_what_is_not_the_documented_json_is_named_without_its_text(api: SecopsApi, body: bytes) -> None:
    api.fails["feeds"] = (200, body)
    failed = failure(api.url)
    assert "not what the Chronicle API documents" in failed.words
    # The client's own error stays behind ours, for whoever prints a traceback.
    assert "Sign in" not in f"{failed!r} {failed.remedy} {failed.__context__!r}"


def test_nobody_who_listens_and_nobody_who_answers(api: SecopsApi) -> None:
    assert f"no answer from {HOST}" in failure(f"http://127.0.0.1:{free_port()}").words
    api.hangs.add("feeds")
    failed = failure(api.url, Limits(read_seconds=0.1))
    assert f"{HOST} did not answer in time" in failed.words
    assert failed.final


def test_an_answer_without_end_is_given_up() -> None:
    """The clock jumps by 100 s at each look, so that nothing waits."""
    seconds = iter(range(0, 1000, 100))
    clock = Clock(monotonic=lambda: float(next(seconds)))
    with serving(Answering(answer(b'{"feeds": []}'))) as port:
        failed = failure(f"http://127.0.0.1:{port}", Limits(body_seconds=50), clock)
    assert "did not answer in time" in failed.words


def test_an_answer_over_the_limit_is_not_kept_even_if_it_was_small_on_the_wire() -> None:
    bomb = gzip.compress(b" " * 40_000_000)
    with serving(Answering(answer(bomb, "200 OK", "Content-Encoding: gzip"))) as port:
        assert "the answer is too large" in failure(f"http://127.0.0.1:{port}").words


def test_a_name_that_is_not_in_dns_points_to_the_region() -> None:
    failed = failure("http://secops.invalid")
    assert "has no address in DNS" in failed.words
    assert "--region" in failed.remedy


def test_a_certificate_that_nobody_trusts_is_told() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    with serving(Answering(answer(b"")), tls) as port:
        assert f"the certificate of {HOST} is not trusted" in failure(f"https://localhost:{port}").words


def test_without_google_credentials_nothing_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none"))
    with pytest.raises(SecopsFailed) as caught, connect(instance(None), Clock()):
        pass
    assert "no Google credentials were found" in caught.value.words
    assert "none" not in caught.value.remedy


def test_a_token_that_cannot_be_renewed_is_told_and_is_in_no_text(
    api: SecopsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Google's own session, as on a laptop whose sign-in was revoked."""
    from google.auth.transport.requests import AuthorizedSession  # noqa: PLC0415
    from secops.chronicle.client import ChronicleClient  # noqa: PLC0415

    monkeypatch.setenv("NO_PROXY", "*")
    credentials = Credentials(token="open-sesame")  # type: ignore[no-untyped-call]  # noqa: S106
    session: Any = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
    transport = Transport(session, Clock(), Limits(), api.url)
    client = ChronicleClient(PROJECT, CUSTOMER, REGION, session=transport)
    api.fails["feeds"] = (401, b"{}")
    with pytest.raises(SecopsFailed) as caught:
        list_feeds(Secops(client, transport))
    session.close()
    assert "Google gave no token" in caught.value.words
    assert api.calls[0].headers["authorization"] == "Bearer open-sesame"
    assert "open-sesame" not in f"{caught.value!r} {caught.value.remedy} {transport!r}"


def test_a_proxy_of_the_environment_is_not_used(api: SecopsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert feeds_of(api) == ([], 0)


def test_the_client_asks_googles_host_over_tls() -> None:
    """What the emulator's address replaces."""
    asked: list[str] = []

    class Session:
        headers: dict[str, str] = {}  # noqa: RUF012 - the client writes its name into it

        def request(self, _: str, url: str, **__: Any) -> requests.Response:
            asked.append(url)
            raise requests.ConnectionError

    from secops.chronicle.client import ChronicleClient  # noqa: PLC0415

    transport = Transport(Session(), Clock(), Limits(), None)
    client = ChronicleClient(PROJECT, CUSTOMER, REGION, session=transport)
    with pytest.raises(SecopsFailed):
        Secops(client, transport).ask(Question("x"), client.list_feeds, dict)
    assert asked == [
        f"https://{HOST}/v1alpha/projects/{PROJECT}/locations/{REGION}/instances/{CUSTOMER}/feeds"
    ]


def test_feeds_come_page_by_page_and_odd_ones_are_counted(api: SecopsApi) -> None:
    api.feeds = [feed(f"gs://b/{number}/", "X") for number in range(150)]
    api.feeds += [3, {"name": ["no", "text"]}, feed("gs://b/x/", "X", state=None, details=None)]
    found, odd = feeds_of(api)
    assert (len(found), odd) == (151, 2)
    assert (found[149].uri, found[149].log_type, found[149].state) == ("gs://b/149/", "X", "SUCCEEDED")
    assert [call.query["pageSize"] for call in api.calls] == ["100", "100"]


def test_page_tokens_without_end_are_not_followed(api: SecopsApi) -> None:
    api.fails["feeds"] = (200, b'{"feeds": [], "nextPageToken": "on"}')
    feeds_of(api)
    assert len(api.calls) == 20


@pytest.mark.parametrize(
    ("sent", "account"),
    [
        ({"name": "projects/p/feedServiceAccounts/a@example.com"}, "a@example.com"),
        ({"serviceAccount": "a@example.com", "name": "x"}, "a@example.com"),
        ({"serviceAccountEmail": "a@example.com"}, "a@example.com"),
        ({"name": "projects/p/feedServiceAccounts/7", "subjectId": "7"}, ""),
    ],
)
def test_the_account_is_found_in_each_known_place(api: SecopsApi, sent: dict[str, str], account: str) -> None:
    api.account = sent
    with connect(instance(api.url), Clock()) as secops:
        assert feed_account(secops) == account
