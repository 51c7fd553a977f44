"""Findings → one HTML file with everything in it.

Nothing in the evidence can run, load or break out: the template escapes its texts, or they are in a JSON
block without a `<`; the script adds them to the page only as text; and the page's policy allows only the one
script and style sheet whose hashes it contains.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from tap_forensics.clock import iso
from tap_forensics.report.indicators import INDICATOR_TYPES
from tap_forensics.report.page.exports import ListedIndicator, left_out
from tap_forensics.report.page.findings import Findings, Row, ShownSummary, ThreatEntry
from tap_forensics.report.page.overview import charts, key_figures
from tap_forensics.report.page.shown import shown_indicator, visible
from tap_forensics.report.records import Tally

_MOST_WITHOUT_SCRIPT = 200


@dataclass(frozen=True)
class Exports:
    """What the page's buttons save: the same text as in the files."""

    csv: str
    stix: str


@dataclass(frozen=True)
class Origin:
    """What the page was made from, and when; `tally` counts the lines that were read."""

    source: str
    made: datetime
    tally: Tally


def render_page(
    origin: Origin, findings: Findings, indicators: Sequence[ListedIndicator], exports: Exports
) -> str:
    script, style = _own_text("page.js"), _own_text("page.css")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["iso"] = iso
    environment.filters["shown"] = lambda one: shown_indicator(one.kind, one.value)
    return environment.from_string(_own_text("page.html")).render(
        source=visible(origin.source),
        made=iso(origin.made.replace(microsecond=0)),
        policy=_policy(script, style),
        # Our own, and its hash is in the policy.
        script=Markup(script),  # noqa: S704 - as above
        style=Markup(style),  # noqa: S704 - as above
        data=_json_block(_data(findings, indicators, exports)),
        figures=key_figures(findings, indicators),
        charts=charts(findings),
        findings=findings,
        indicators=indicators,
        left_out=left_out(findings.entries, indicators),
        kinds=INDICATOR_TYPES,
        tally=origin.tally,
        not_listed=sum(entry.not_listed for entry in findings.entries),
        most=_MOST_WITHOUT_SCRIPT,
    )


def _own_text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """https://www.w3.org/TR/CSP3/; Trusted Types prevent the script from turning text into markup."""
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json_block(document: Any) -> Markup:
    """JSON for a script element: `<` occurs only in texts, where it can be escaped."""
    text = msgspec.json.encode(document).decode()
    for sign in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - what could end the element is escaped above


def _data(findings: Findings, indicators: Sequence[ListedIndicator], exports: Exports) -> dict[str, Any]:
    """What `page.js` reads. Frequent texts are indexes into `words`."""
    words: dict[str, int] = {}

    def number(word: str) -> int:
        return words.setdefault(word, len(words))

    return {
        "reports": [_entry(entry, number) for entry in findings.entries],
        "campaigns": findings.campaigns,
        "indicators": [_indicator(one) for one in indicators],
        "csv": exports.csv,
        "stix": exports.stix,
        "words": list(words),
    }


def _entry(entry: ThreatEntry, number: Callable[[str], int]) -> dict[str, Any]:
    return {
        "id": entry.report_id,
        "name": entry.name,
        "is_campaign": entry.is_campaign,
        "status": entry.status,
        "classification": entry.classification,
        "campaign": entry.campaign_id or "",
        "generated": iso(entry.generated.replace(microsecond=0)) if entry.generated else "",
        "seen": dict(entry.seen),
        "summary": dict(zip(ShownSummary._fields, entry.summary, strict=True)),
        "malicious": entry.malicious,
        "total": entry.kinds.total(),
        "rows": [_row(row, number) for row in entry.rows],
    }


def _row(row: Row, number: Callable[[str], int]) -> list[Any]:
    """[type, verdict, engine, platform, field, text, field, text …]"""
    told = [part for label, text in row.told for part in (number(label), text)]
    return [number(row.kind), row.verdict, number(row.engine), number(row.platform), *told]


def _indicator(one: ListedIndicator) -> list[Any]:
    """[kind, real value, shown value or 0 if it is the same, numbers of the reports, found in]"""
    shown = shown_indicator(one.kind, one.value)
    return [one.kind, one.value, 0 if shown == one.value else shown, one.entries, ", ".join(one.fields)]
