"""The feeds of an instance that read Cloud Storage, and the account that reads for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from secops.chronicle.utils.request_utils import chronicle_request

from tap_forensics.secops.connection import Secops
from tap_forensics.secops.failures import Question

_PAGE = 100
_MAX_PAGES = 20
_LIST = Question("list the feeds", "chronicle.feeds.list")
_ACCOUNT = Question("ask for the account that reads for the feeds")


class _Settings(msgspec.Struct, rename="camel"):
    """Of the three kinds of Cloud Storage feeds, the fields that they share."""

    bucket_uri: str | None = None
    source_deletion_option: str | None = None
    chronicle_service_account: str | None = None


class _Details(msgspec.Struct, rename="camel"):
    log_type: str | None = None
    feed_source_type: str | None = None
    gcs_settings: _Settings | None = None
    gcs_v2_settings: _Settings | None = None
    google_cloud_storage_event_driven_settings: _Settings | None = None


class _Failure(msgspec.Struct, rename="camel"):
    error_code: str | None = None
    http_error_code: int | None = None
    error_cause: str | None = None
    error_action: str | None = None


class _Feed(msgspec.Struct, rename="camel"):
    name: str | None = None
    display_name: str | None = None
    state: str | None = None
    failure_msg: str | None = None
    last_feed_initiation_time: str | None = None
    failure_details: _Failure | None = None
    details: _Details | None = None


class _Page(msgspec.Struct, rename="camel"):
    feeds: list[Any] | None = None
    next_page_token: str | None = None


class _Account(msgspec.Struct, rename="camel"):
    """Google's schema has `name`, which ends with the account; instances were seen to send the others."""

    name: str | None = None
    service_account: str | None = None
    service_account_email: str | None = None


@dataclass(frozen=True)
class SecopsFeed:
    """`uri` is "" for a feed that does not read Cloud Storage. All texts are SecOps' own, not yet escaped."""

    name: str
    log_type: str
    source: str
    uri: str
    state: str
    last_success: str
    failure: tuple[str, str]
    account: str
    deletes: bool

    @property
    def folder(self) -> str:
        """Without the slashes at its end, so that two spellings of a folder are equal."""
        return self.uri.rstrip("/")


def list_feeds(secops: Secops) -> tuple[list[SecopsFeed], int]:
    """The feeds, and how many entries are none or come after page 20. Raises `SecopsFailed`."""
    feeds: list[SecopsFeed] = []
    odd = 0
    for page in _pages(secops):
        for entry in page:
            try:
                feeds.append(_feed(msgspec.convert(entry, type=_Feed)))
            except msgspec.ValidationError:
                odd += 1
    return feeds, odd


def _pages(secops: Secops) -> Iterator[list[Any]]:
    """The client's own loop would follow page tokens without end."""
    token: str | None = None
    for _ in range(_MAX_PAGES):
        list_page = partial(secops.client.list_feeds, _PAGE, token, as_list=False)
        page = secops.ask(_LIST, list_page, _Page)
        yield page.feeds or []
        token = page.next_page_token
        if not token:
            return


def _feed(found: _Feed) -> SecopsFeed:
    details = found.details or _Details()
    settings = (
        details.gcs_v2_settings
        or details.google_cloud_storage_event_driven_settings
        or details.gcs_settings
        or _Settings()
    )
    failure = found.failure_details or _Failure()
    return SecopsFeed(
        name=found.display_name or (found.name or "").rpartition("/")[2],
        log_type=(details.log_type or "").rpartition("/")[2],
        source=details.feed_source_type or "",
        uri=settings.bucket_uri or "",
        state=found.state or "STATE_UNSPECIFIED",
        last_success=found.last_feed_initiation_time or "",
        failure=(_cause(found, failure), failure.error_action or ""),
        account=settings.chronicle_service_account or "",
        deletes="ON_SUCCESS" in (settings.source_deletion_option or ""),
    )


def _cause(found: _Feed, failure: _Failure) -> str:
    codes = [str(code) for code in (failure.error_code, failure.http_error_code) if code]
    cause = failure.error_cause or found.failure_msg or "without details"
    return f"{cause} ({', '.join(codes)})" if codes else cause


def feed_account(secops: Secops) -> str:
    """The account that reads for feeds that name none; "" if SecOps names none. Raises `SecopsFailed`."""
    path = "feedServiceAccounts:fetchServiceAccountForCustomer"
    # Part of the client's package, though no method of its own calls this.
    found = secops.ask(_ACCOUNT, lambda: chronicle_request(secops.client, "GET", path), _Account)
    address = found.service_account_email or found.service_account or found.name or ""
    return address.rpartition("/")[2] if "@" in address else ""
