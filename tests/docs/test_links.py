"""Every link between files of the checkout leads somewhere, to the heading it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markers import CHECKOUT, pages

_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.M | re.S)
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
# Four questions that a stranger asks, and a page that answers each, two clicks from README at most.
ANSWERS = {
    "where is a 429 handled": ("tap/rate_limit.py", "docs/reference/http-status.md"),
    "what happens when the function is killed": ("takes over", "docs/explanation/delivery-guarantees.md"),
    "where is _threatId added": (
        "`_threatId`, `_campaignId` and `generated` are added",
        "docs/explanation/architecture.md",
    ),
    "which setting bounds a run": ("RUN_BUDGET_SECONDS", "docs/reference/settings.md"),
}


def links(path: Path) -> list[str]:
    return _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """As GitHub makes them from headings, and those that are set by name."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}
    return made | set(re.findall(r'<a name="([^"]+)"></a>', text))


def wrong(path: Path) -> list[str]:
    found = []
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.replace("\\_", "_").partition("#")
        target = (path.parent / name).resolve() if name else path
        outside = not target.is_relative_to(CHECKOUT)
        if outside or not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    assert wrong(path) == []


def test_a_wrong_link_and_a_wrong_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`, c\n[x](missing.md) [y](#a-b-c) [z](#d)\n```\n[in code](missing.md)\n```\n")
    assert anchors(page) == {"a-b-c"}
    assert links(page) == ["missing.md", "#a-b-c", "#d"]


def within_two_clicks() -> set[Path]:
    reached = {CHECKOUT / "README.md"}
    for _ in range(2):
        targets = [
            (path.parent / link.partition("#")[0]).resolve()
            for path in reached
            if path.suffix == ".md"
            for link in links(path)
            if not re.match(r"[a-z]+:|#", link)
        ]
        reached |= {target for target in targets if target.is_file()}
    return reached


@pytest.mark.parametrize("question", ANSWERS)
def test_the_answer_is_two_clicks_from_the_readme(question: str) -> None:
    words, page = ANSWERS[question]
    assert CHECKOUT / page in within_two_clicks()
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    assert words in text


def test_every_page_of_docs_is_reached_from_its_index() -> None:
    index = CHECKOUT / "docs" / "README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in pages() if index.parent in page.parents} - {index} <= listed
