"""Evidence → the UDM event that SecOps' default parser is documented to make of it.

The table is Google's page on the Proofpoint TAP Forensics parser, whose source is not public. Field names and
enumerations are those of Google's `google.backstory.types.udm`, as event JSON spells them: `additional` is a
flat object there. `ASSUMED` lists the decisions that the table leaves open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tap_forensics.clock import iso
from tap_forensics.log import escape_unprintable
from tap_forensics.report import fields
from tap_forensics.report.records import Report
from tap_forensics.report.summaries import Names, Summary

Udm = dict[str, Any]
_MAX_FIELDS_NAMED = 200
_PROTOCOLS = frozenset(
    ("ICMP", "IGMP", "TCP", "UDP", "IP6IN4", "GRE", "ESP", "ICMP6", "EIGRP", "ETHERIP", "PIM", "VRRP", "SCTP")
)
_STATUSES = {"active": "ACTIVE", "cleared": "CLEARED", "falsePositive": "FALSE_POSITIVE"}
_WINDOWS_NAMES = ("win", "windows")
_SEVERITIES = frozenset(("INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL"))
_CATEGORIES = {
    "malware": "SOFTWARE_MALICIOUS",
    "phish": "MAIL_PHISHING",
    "spam": "MAIL_SPAM",
    "impostor": "MAIL_SPOOFING",
}

ASSUMED = (
    "One event for each evidence item: `principal.port`, `url`, `domain` and `file` hold one value each.",
    "The raw fields behind the table's names: `prin_ip` is `what.ip` and `what.ips`; `domain` is "
    "`what.domain`, `what.host` or the first of `what.domains`; `path`, `port` and `url` are those of "
    "`what`; `file_hash_sha256` is `what.sha256`; `protocol` is `what.type` of network evidence.",
    "`has_principal` is true if there is an IP. UDM requires an IP, MAC, host name or asset in the principal "
    "of a STATUS_UPDATE, so an event without one is shown as GENERIC_EVENT.",
    "`malicious_label` and `threat_type_label` contain the evidence's `malicious` and `type` under the keys "
    "`malicious` and `threat_type`.",
    "`_security_result` contains the report's id, name and status: the table does not say what is merged.",
    "A line without a valid `generated` gets the time of ingestion.",
)

# Only if there are summaries.
ASSUMED_OF_SUMMARIES = (
    "What threat summaries say (severity, category, actors, families, malware, techniques) is in "
    "`security_result`, though this parser never sees them: they have a feed and a log type of their own.",
)

WRONG = {
    "ip_in_principal": "the IP of an indicator is in `principal.ip` and `principal.asset.ip`: the host that "
    "malware talks to is shown as the actor, and as an asset of yours (`target.ip` would be right)",
    "indicator_in_principal": "a URL, domain, path, hash or port of the evidence is in `principal` "
    "(`target` would be right)",
    "no_identifier": "STATUS_UPDATE is a constant, though the principal has nothing that UDM accepts as an "
    "identifier",
    "not_windows": "`platform` is the constant WINDOWS, though the sandbox ran something else",
}


@dataclass
class Notes:
    """Counts: by field of what is not mapped, and by key of `WRONG`."""

    events: int = 0
    not_mappable: int = 0
    without_time: int = 0
    with_summary: int = 0
    not_mapped: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def leave_out(self, name: str) -> None:
        """Names come from the evidence, so they are escaped and limited in number."""
        known = name in self.not_mapped or len(self.not_mapped) < _MAX_FIELDS_NAMED
        self.not_mapped[escape_unprintable(name, 80) if known else "(further fields)"] += 1


def udm_events(report: Report, notes: Notes, summary: Summary | None = None) -> Iterator[Udm]:
    """One event for each item of a report's evidence that is an object; `notes` counts them and the rest.

    `summary`: of the report's threat.
    """
    result = _result(report, summary)
    for item in report.evidence:
        if isinstance(item, dict):
            notes.events += 1
            notes.with_summary += summary is not None
            yield _event(report, item, result, notes)
        else:
            notes.not_mappable += 1


def _event(report: Report, item: dict[str, Any], result: list[Udm], notes: Notes) -> Udm:
    kind = fields.text(item.get("type"))
    what = item.get("what")
    principal, network = _principal(kind, what if isinstance(what, dict) else {}, notes)
    _note_item(item, notes)
    _note_faults(principal, item, notes)
    event: Udm = {"metadata": _metadata(report, principal, notes), "principal": principal}
    parts = (("network", network), ("additional", _labels(kind, item)), ("security_result", result))
    return event | {name: part for name, part in parts if part}


def _metadata(report: Report, principal: Udm, notes: Notes) -> Udm:
    generated = fields.moment(report.generated)
    notes.without_time += generated is None
    return {
        **({"event_timestamp": iso(generated)} if generated else {}),
        "event_type": "STATUS_UPDATE" if "ip" in principal else "GENERIC_EVENT",
        "vendor_name": "Proofpoint",
        "product_name": "TAP Forensics",
        "product_event_type": "Forensic Reports",
    }


def _principal(kind: str | None, what: dict[str, Any], notes: Notes) -> tuple[Udm, Udm]:
    """`principal` and `network`; each field of `what` is in one of them or noted as left out."""
    asset: Udm = {"platform_software": {"platform": "WINDOWS"}}
    principal: Udm = {"asset": asset}
    network: Udm = {}
    for name, value in what.items():
        place = _PLACES.get(name) if name != "type" or kind == "network" else None
        if value is None or value in ("", []):
            continue
        if place is None or not place(principal, network, value):
            notes.leave_out(
                f"{kind or '(no type)'}.{name}{'' if place is None else ' (unusable or one too many)'}"
            )
    if "ip" in principal:
        asset["ip"] = principal["ip"]
    return principal, network


def _put_ips(principal: Udm, _: Udm, value: Any) -> bool:
    given = fields.texts(value)
    valid = [address for address in map(fields.ip, given) if address]
    if valid:
        principal["ip"] = list(dict.fromkeys([*principal.get("ip", []), *valid]))
    return len(valid) == len(given)


def _put_domain(principal: Udm, _: Udm, value: Any) -> bool:
    given = fields.texts(value)
    name = fields.text(given[0])
    if name is None or "domain" in principal:
        return False
    principal["domain"] = {"name": name}
    return len(given) == 1


def _put_port(principal: Udm, _: Udm, value: Any) -> bool:
    return _put(principal, "port", fields.port(value))


def _put_url(principal: Udm, _: Udm, value: Any) -> bool:
    return _put(principal, "url", fields.text(value))


def _put_path(principal: Udm, _: Udm, value: Any) -> bool:
    return _put_in_file(principal, "full_path", fields.text(value))


def _put_sha256(principal: Udm, _: Udm, value: Any) -> bool:
    return _put_in_file(principal, "sha256", fields.sha256(value))


def _put_protocol(_: Udm, network: Udm, value: Any) -> bool:
    name = value.upper() if isinstance(value, str) else None
    return _put(network, "ip_protocol", name if name in _PROTOCOLS else None)


def _put_in_file(principal: Udm, name: str, value: str | None) -> bool:
    if value is not None:
        principal.setdefault("file", {})[name] = value
    return value is not None


def _put(place: Udm, name: str, value: Any) -> bool:
    if value is not None:
        place[name] = value
    return value is not None


_PLACES: dict[str, Callable[[Udm, Udm, Any], bool]] = {
    "ip": _put_ips,
    "ips": _put_ips,
    "domain": _put_domain,
    "host": _put_domain,
    "domains": _put_domain,
    "port": _put_port,
    "url": _put_url,
    "path": _put_path,
    "sha256": _put_sha256,
    "type": _put_protocol,
}


def _labels(kind: str | None, item: dict[str, Any]) -> Udm:
    malicious = item.get("malicious")
    return {
        **({"malicious": str(malicious).lower()} if isinstance(malicious, bool) else {}),
        **({"threat_type": kind} if kind else {}),
    }


def _result(report: Report, summary: Summary | None) -> list[Udm]:
    known = {
        "threat_id": fields.text(report.id or report.threat_id),
        "threat_name": fields.text(report.name) or (summary and fields.text(summary.name)),
        "threat_status": _STATUSES.get(report.status or (summary.status if summary else "")),
        **(_of_summary(summary) if summary else {}),
    }
    result = {name: value for name, value in known.items() if value}
    return [result] if result else []


def _of_summary(summary: Summary) -> Udm:
    """Enumerations only where TAP's word is one of UDM's; the words themselves in any case."""
    severity, category = summary.severity.upper(), _CATEGORIES.get(summary.category.lower())
    actors = _associations(summary.actors, "THREAT_ACTOR")
    malware = _associations((*summary.families, *summary.malware), "MALWARE")
    techniques = [
        {key: value for key, value in (("id", known_by), ("name", name)) if value}
        for known_by, name in summary.techniques
    ]
    return {
        "severity": severity if severity in _SEVERITIES else None,
        "severity_details": summary.severity_words(),
        "category": [category] if category else None,
        "category_details": [summary.category] if summary.category else None,
        "associations": [*actors, *malware],
        "attack_details": {"techniques": techniques} if techniques else None,
    }


def _associations(names: Names, kind: str) -> list[Udm]:
    return [
        {"type": kind, **{key: value for key, value in (("id", known_by), ("name", name)) if value}}
        for known_by, name in dict.fromkeys(names)
    ]


def _note_item(item: dict[str, Any], notes: Notes) -> None:
    """Notes the fields of an item other than `type`, `malicious` and `what`."""
    for name, value in item.items():
        is_mapped = name == "type" or (name == "malicious" and isinstance(value, bool))
        if not is_mapped and value not in (None, "", 0) and not (name == "what" and isinstance(value, dict)):
            notes.leave_out(name)


def _note_faults(principal: Udm, item: dict[str, Any], notes: Notes) -> None:
    notes.wrong["ip_in_principal"] += "ip" in principal
    notes.wrong["indicator_in_principal"] += bool(principal.keys() - {"ip", "asset"})
    notes.wrong["no_identifier"] += "ip" not in principal
    notes.wrong["not_windows"] += _ran_elsewhere(item.get("platforms"))


def _ran_elsewhere(platforms: Any) -> bool:
    named = [p.get("os") for p in fields.texts(platforms) if isinstance(p, dict)]
    systems = [name.lower() for name in named if isinstance(name, str) and name]
    return bool(systems) and not any(name.startswith(_WINDOWS_NAMES) for name in systems)
