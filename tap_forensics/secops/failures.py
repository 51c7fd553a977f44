"""Why SecOps did not answer a question: one sentence for each reason, with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import requests
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
from urllib3.exceptions import NameResolutionError, ReadTimeoutError, SSLError

ROLE = "roles/chronicle.viewer"


class Question(NamedTuple):
    """What SecOps is asked to do, in words that follow "could not", and the permission that it needs."""

    words: str
    permission: str = ""


class SecopsFailed(Exception):
    """A question without an answer. `final`: every other question would fail for the same reason.

    No text of it comes from the other side.
    """

    def __init__(self, words: str, remedy: str, *, status: int | None = None, final: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.remedy = remedy
        self.status = status
        self.final = final


_SIGN_IN = (
    "run `gcloud auth application-default login`, or let GOOGLE_APPLICATION_CREDENTIALS name a valid key file"
)
_STATUSES = {
    400: ("SecOps rejected the request", "update the extra `secops`; the API is in alpha and changes"),
    401: ("SecOps does not accept the Google credentials", _SIGN_IN),
    404: (
        "SecOps knows no such instance or resource",
        "check --customer-id, --project-id and --region against SecOps, Settings, SIEM Settings, Profile",
    ),
    429: ("the quota of the Chronicle API is used up", "wait some minutes, then try again"),
}
_NOT_PERMITTED = "this Google identity may not do that"


def refused(status: int, question: Question) -> SecopsFailed:
    """For every status but 200."""
    words, remedy = _STATUSES.get(status, _other(status))
    if status == 403:
        words, remedy = _NOT_PERMITTED, _rights(question)
    sentence = f"could not {question.words}: {words} ({status})"
    return SecopsFailed(sentence, remedy, status=status, final=status in (401, 429))


def _rights(question: Question) -> str:
    permission = f" or one with {question.permission}" if question.permission else ""
    return f"give it {ROLE}{permission} in the project of SecOps, and enable the Chronicle API there"


def _other(status: int) -> tuple[str, str]:
    if 300 <= status < 400:
        return "SecOps redirects, which is never followed", "check whether a sign-in page is in between"
    if status >= 500:
        return "SecOps is in trouble", "try again later"
    return "SecOps rejected the request", "check --customer-id, --project-id and --region"


def unanswered(error: Exception, question: Question, host: str) -> SecopsFailed:
    """For the errors of requests, urllib3 and google-auth. Their texts may hold a token or an address."""
    words, remedy = _reason(error, host)
    return SecopsFailed(f"could not {question.words}: {words}", remedy, final=True)


def no_credentials() -> SecopsFailed:
    return SecopsFailed("no Google credentials were found", _SIGN_IN, final=True)


def _reason(error: Exception, host: str) -> tuple[str, str]:
    links = list(_links(error))
    for kinds, words, remedy in _REASONS:
        if any(isinstance(link, kinds) for link in links):
            return words.format(host=host), remedy
    return f"no answer from {host} ({type(error).__name__})", _ROUTE


def _links(error: Exception) -> Iterator[object]:
    """The error, and what is in it: requests packs the error of urllib3 into its own, at times two deep."""
    inner = error.args[0] if error.args else None
    yield from (error, inner, getattr(inner, "reason", None))


_ROUTE = "allow HTTPS to it; HTTPS_PROXY is for TAP and is not used here"
_SLOW = "try again; a search over many logs can be slow"
# The first that fits.
_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (DefaultCredentialsError, "no Google credentials were found", _SIGN_IN),
    (RefreshError, "Google gave no token for the credentials", _SIGN_IN),
    (GoogleAuthError, "the sign-in at Google failed", _SIGN_IN),
    (SSLError, "the certificate of {host} is not trusted", "if a proxy inspects TLS, set REQUESTS_CA_BUNDLE"),
    (NameResolutionError, "{host} has no address in DNS", "check --region: this name begins with it"),
    (requests.exceptions.ConnectTimeout, "{host} did not accept the connection in time", _ROUTE),
    ((requests.exceptions.Timeout, ReadTimeoutError, TimeoutError), "{host} did not answer in time", _SLOW),
)


def too_large(question: Question) -> SecopsFailed:
    return SecopsFailed(f"could not {question.words}: the answer is too large", "please report this")


def unexpected(question: Question) -> SecopsFailed:
    """An answer that is not JSON, or JSON of another shape."""
    words = f"could not {question.words}: the answer is not what the Chronicle API documents"
    remedy = "check whether a proxy or a sign-in page is in between; if not, update the extra `secops`"
    return SecopsFailed(words, remedy)
