"""The API's paths, the quota pool that a request uses, and the threat or campaign that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

CLICKS_PERMITTED = "/v2/siem/clicks/permitted"
FORENSICS = "/v2/forensics"
# One threat or campaign: its id is the last part of the path.
THREAT_SUMMARY = "/v2/threat/summary/"
CAMPAIGN = "/v2/campaign/"
POOLS = ("siem", "clicks_permitted", "forensics", "threat_forensics", "campaign_forensics")


def pool_of(path: str, query: Mapping[str, str]) -> str | None:
    """The pool that a request counts in. None: summaries and campaigns have no limit.

    `forensics` is for `threatId` with the campaign's forensics, `threat_forensics` for `threatId` alone.
    """
    if path == FORENSICS:
        if "campaignId" in query:
            return "campaign_forensics"
        return "forensics" if query.get("includeCampaignForensics") == "true" else "threat_forensics"
    if path == CLICKS_PERMITTED:
        return "clicks_permitted"
    return "siem" if path.startswith("/v2/siem/") else None


def matches(where: str, path: str) -> bool:
    """Whether `path` is `where`. If `where` ends with a slash, every path below it matches too."""
    return path == where or (where.endswith("/") and path.startswith(where))


def id_in_path(path: str) -> str | None:
    """The id at the end of a summary's or campaign's path, percent-decoded once. None: another path."""
    for prefix in (THREAT_SUMMARY, CAMPAIGN):
        last = path.removeprefix(prefix)
        if last and last != path and "/" not in last:
            return unquote(last)
    return None


def asked_id(path: str, query: Mapping[str, str]) -> str | None:
    """The threat or campaign that a request is about, wherever the request names it."""
    return id_in_path(path) or query.get("threatId") or query.get("campaignId")
