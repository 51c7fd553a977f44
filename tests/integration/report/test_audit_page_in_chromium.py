"""The page of an audit as a browser shows it, with texts that would harm its reader."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from playwright.sync_api import BrowserContext

from tap_forensics.audit.comparison import KINDS, DayCount, Findings
from tap_forensics.audit.lines import Defect
from tap_forensics.audit.page import About, render_page
from tap_forensics.tap.windows import Window
from tests.support.lab import START
from tests.support.report.hostile import TRICKS


def test_nothing_runs_is_loaded_or_reorders_its_surroundings(context: BrowserContext, tmp_path: Path) -> None:
    findings = Findings()
    for trick in TRICKS:
        for kind in KINDS:
            findings.add(kind, Defect(trick, trick))
    about = About(TRICKS[0], TRICKS[1], Window(START - timedelta(days=1), START), START, TRICKS[2])
    file = tmp_path / "page.html"
    file.write_text(
        render_page(about, [DayCount(START.date(), "threats", 9, 5, 1)], findings), encoding="utf-8"
    )
    page, seen = context.new_page(), []
    page.on("console", lambda message: seen.append(message.text))
    page.on("request", lambda request: seen.append(request.url))
    page.goto(file.as_uri())
    assert seen == [file.as_uri()]
    assert page.evaluate("window.harmed") is None
    assert page.locator("script, img, svg, iframe, base, link, a, object, form").count() == 0
    assert page.locator("section h3").count() == len(KINDS)
    assert page.locator("section tbody tr").count() == len(KINDS) * len(TRICKS)
    assert "\u202e" not in page.inner_text("body")
    # The style sheet is allowed by its hash.
    assert page.locator(".number").first.evaluate("(one) => getComputedStyle(one).textAlign") == "right"
    assert page.locator(".lacks .number").all_inner_texts() == ["9", "5", "1", "3"]
