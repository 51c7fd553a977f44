"""The result of an audit as one HTML page, which can be handed to whoever asks for the proof."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

import jinja2
from markupsafe import Markup

from tap_forensics.audit.comparison import KINDS, DayCount, Findings
from tap_forensics.clock import iso
from tap_forensics.report.page.shown import visible
from tap_forensics.tap.windows import Window

_MOST_NAMED = 1000
_LONGEST_TEXT = 1000


@dataclass(frozen=True)
class About:
    """What was compared, and when."""

    bucket: str
    tenant: str
    interval: Window
    made: datetime
    read: str


def render_page(about: About, days: Sequence[DayCount], findings: Findings) -> str:
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = lambda text: visible(text[:_LONGEST_TEXT])
    return environment.from_string(template).render(
        about=about,
        start=iso(about.interval.start),
        end=iso(about.interval.end),
        made=iso(about.made.replace(microsecond=0)),
        days=days,
        total=_total(days),
        findings=findings,
        kinds=[(kind, title, verdict.name.lower()) for kind, (title, verdict) in KINDS.items()],
        complete=findings.is_complete(),
        most=_MOST_NAMED,
        policy=f"default-src 'none'; style-src {_hash(style)}; base-uri 'none'; form-action 'none'",
        # Our own, and its hash is in the policy.
        style=Markup(style),  # noqa: S704 - as above
    )


def _total(days: Sequence[DayCount]) -> list[int]:
    return [
        sum(row.shown for row in days),
        sum(row.in_bucket for row in days),
        sum(row.explained for row in days),
        sum(row.missing for row in days),
    ]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
