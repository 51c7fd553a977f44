"""TAP's threat summaries: who is behind a threat, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tap_forensics.report import fields

# A document with an id and one of these is a summary.
_SIGNS = frozenset(
    ("severity", "severityScore", "identifiedAt", "category", "actors", "families", "malware", "techniques")
)
_MOST_NAMES = 20
_LONGEST_TEXT = 200
_MOST_SEVERE = 1_000_000
_BASE_WEIGHT, _TEXT_WEIGHT = 1500, 60

Names = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Summary:
    """One threat's summary. Texts are unchanged but limited; `severity` is a text, `score` a number.

    `actors` and so on are `(id, name)`; either may be empty.
    """

    threat_id: str
    name: str
    type: str
    category: str
    status: str
    severity: str
    score: int | None
    actors: Names
    families: Names
    malware: Names
    techniques: Names
    brands: Names

    def severity_words(self) -> str:
        """`high (870)`, or what there is of it."""
        score = "" if self.score is None else f"{self.score:,}"
        return f"{self.severity} ({score})" if self.severity and score else self.severity or score

    def weight(self) -> int:
        """About its bytes in memory."""
        names = (self.actors, self.families, self.malware, self.techniques, self.brands)
        texts = [text for pairs in names for pair in pairs for text in pair]
        return _BASE_WEIGHT + sum(_TEXT_WEIGHT + 4 * len(text) for text in texts)


@dataclass
class SummaryIndex:
    """The newest summary of each threat, by its ID; `weight` is about the bytes of all of them."""

    by_threat: dict[str, Summary] = field(default_factory=dict)
    weight: int = 0

    def add(self, threat_id: str, summary: Summary) -> None:
        before = self.by_threat.get(threat_id)
        self.weight += summary.weight() - (before.weight() if before else 0)
        self.by_threat[threat_id] = summary

    def get(self, threat_id: str | None) -> Summary | None:
        return self.by_threat.get(threat_id) if threat_id else None


def summary_of(document: dict[str, Any]) -> Summary | None:
    """None if the document is no summary."""
    threat_id = fields.text(document.get("_threatId")) or fields.text(document.get("id"))
    if threat_id is None or not _SIGNS & document.keys():
        return None
    score = document.get("severityScore")
    is_score = isinstance(score, int | float) and not isinstance(score, bool) and abs(score) <= _MOST_SEVERE
    return Summary(
        threat_id,
        _text(document.get("name")),
        _text(document.get("type")),
        _text(document.get("category")),
        _text(document.get("status")),
        _text(document.get("severity")),
        round(score) if is_score and isinstance(score, int | float) else None,
        *(_names(document.get(key)) for key in ("actors", "families", "malware", "techniques", "brands")),
    )


def _names(value: Any) -> Names:
    """TAP sends objects with `id` and `name`; a text counts as a name."""
    entries = value if isinstance(value, list) else []
    found = [
        (_text(entry.get("id")), _text(entry.get("name"))) if isinstance(entry, dict) else ("", _text(entry))
        for entry in entries[:_MOST_NAMES]
    ]
    return tuple(dict.fromkeys(pair for pair in found if any(pair)))


def _text(value: Any) -> str:
    return value.strip()[:_LONGEST_TEXT] if isinstance(value, str) else ""
