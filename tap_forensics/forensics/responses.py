"""A response of the Forensics API → its reports, as TAP sent them."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tap_forensics.errors import TooLarge, Unavailable
from tap_forensics.records.ndjson import Fields, sanitize_utf8
from tap_forensics.tap.client import TapResponse
from tap_forensics.workers import Fetched, Request, Skipped

_MAX_GENERATED_BYTES = 100
# The threat's report and those of its campaigns. Each becomes a line, which is much larger than the smallest
# report.
_MAX_REPORTS = 2_000


class _Body(msgspec.Struct):
    generated: msgspec.Raw = msgspec.Raw()
    reports: list[Fields] | msgspec.UnsetType | None = msgspec.UNSET


class _OddBody(msgspec.Struct):
    """A body with a report that is not an object: each report is checked separately."""

    generated: msgspec.Raw = msgspec.Raw()
    reports: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


_body = msgspec.json.Decoder(_Body)
_odd_body = msgspec.json.Decoder(_OddBody)


@dataclass(frozen=True)
class FetchedReports(Fetched):
    """The reports of a threat or a campaign; the writer empties the list."""

    generated: msgspec.Raw | None
    reports: list[Fields] | list[msgspec.Raw]


def parse_reports(response: TapResponse, request: Request) -> FetchedReports | Skipped:
    """Raises `Unavailable` for a body that TAP does not document, `TooLarge` for too many reports."""
    if response.status == 204:
        return Skipped(request)
    try:
        body = _decode(sanitize_utf8(response.body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("the response is not the JSON that TAP documents") from None
    if body.reports is msgspec.UNSET:
        raise Unavailable("the response has no reports: it is not what TAP documents")
    if not body.reports:
        return Skipped(request)
    number = len(body.reports)
    if number > _MAX_REPORTS:
        raise TooLarge(f"a response with {number} reports is not from TAP")
    return FetchedReports(request, response.release, _generated(body.generated), body.reports)


def _decode(body: bytes) -> _Body | _OddBody:
    try:
        return _body.decode(body)
    except msgspec.ValidationError:
        return _odd_body.decode(body)


def _generated(raw: msgspec.Raw) -> msgspec.Raw | None:
    """TAP's time as a JSON string, copied so that it does not keep the body alive; None for anything else."""
    is_text = 2 < len(bytes(raw)) <= _MAX_GENERATED_BYTES and bytes(raw).startswith(b'"')
    return raw.copy() if is_text else None
