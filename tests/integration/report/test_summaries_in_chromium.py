"""Threat summaries on the page, as a browser shows them."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect

from tests.integration.report.test_summaries import EVIDENCE, SUMMARY, write
from tests.support.report.chromium import open_page
from tests.support.report.commands import run
from tests.support.report.hostile import TRICKS
from tests.support.report.made import malicious, report


def opened(context: BrowserContext, source: Path) -> Page:
    page = source / "page.html"
    assert run("report", source, "-o", page).returncode == 0
    return open_page(context.new_page(), page)


def test_a_reader_sees_and_finds_what_a_summary_says(context: BrowserContext, tmp_path: Path) -> None:
    other = report(malicious("url", url="https://other.example.com/"), id="t2", _threatId="t2")
    page = opened(context, write(tmp_path, tap_forensics=[EVIDENCE, other], tap_threat_summaries=[SUMMARY]))
    expect(page.locator("details.report")).to_have_count(2)
    page.fill("#query", "ta-example")
    expect(page.locator("details.report")).to_have_count(1)
    expect(page.locator("summary .facts")).to_contain_text("severity High (870)")
    page.click("details.report summary")
    for words in ("families Example Stealer", "techniques Phishing", "actors TA-example"):
        expect(page.locator(".about")).to_contain_text(words)


def test_nothing_in_a_summary_can_act(context: BrowserContext, tmp_path: Path) -> None:
    reports, summaries = [], []
    for number, trick in enumerate(TRICKS):
        reports.append(report(malicious("url", url="https://a.example.com/"), id=f"t{number}"))
        names = [{"id": trick, "name": trick}, trick]
        texts = dict.fromkeys(("name", "type", "category", "status", "severity"), trick)
        lists = dict.fromkeys(("actors", "families", "malware", "techniques", "brands"), names)
        summaries.append({"id": f"t{number}", **texts, **lists})
    page = opened(context, write(tmp_path, tap_forensics=reports, tap_threat_summaries=summaries))
    for details in page.locator("details.report").all():
        details.locator("summary").click()
    assert page.evaluate("window.harmed") is None
    assert page.locator("img, iframe, base, main a[href]").count() == 0
