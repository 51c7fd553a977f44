"""The report's page as its reader has it: in a real Chromium, with evidence that would harm him."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, ViewportSize

from tests.bench.page import measure
from tests.integration.report.conftest import DESKTOP
from tests.support.report import chromium

PHONE = ViewportSize(width=360, height=740)
# A function that names each text whose contrast is under that of
# https://www.w3.org/TR/WCAG22/#contrast-minimum
FAINT = Path(__file__).with_name("faint.js").read_text(encoding="utf-8")
TAGS = (
    "script",
    "style",
    "iframe",
    "img",
    "object",
    "embed",
    "base",
    "link",
    "a",
    "form",
    "meta[http-equiv]",
)
HANDLERS = ("[onload]", "[onerror]", "[onmouseover]", "[srcdoc]", "[style]")
NAMELESS = """[...document.querySelectorAll("button, input, select")].filter((one) => one.checkVisibility()
  && !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length)).length"""


class Watched:
    """What a page did beside showing itself."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.events: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.events.append(message.text))
        page.on("pageerror", lambda error: self.events.append(str(error)))
        page.on("popup", lambda popup: self.events.append(popup.url))
        page.on("dialog", lambda dialog: self.events.append(dialog.message))


def open_everything(page: Page) -> None:
    """Every report of the page, and every item in it."""
    while page.locator("#more-reports:visible").count():
        page.locator("#more-reports").click()
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.wait_for_function("!document.querySelector('details:not(:has(.evidence))')")


def open_first(page: Page) -> None:
    page.locator("details.report .badge").first.click()
    page.wait_for_selector("details[open] .evidence")


def test_nothing_in_hostile_evidence_runs_loads_or_breaks_out(
    context: BrowserContext, hostile_report: Path
) -> None:
    page = context.new_page()
    watched = Watched(page)
    chromium.open_page(page, hostile_report)
    open_everything(page)
    page.mouse.move(600, 400)
    assert page.evaluate("window.harmed") is None
    assert watched.requests == [hostile_report.as_uri()]
    assert watched.events == []
    assert page.url == hostile_report.as_uri()
    counts = {name: page.locator(name).count() for name in (*TAGS, *HANDLERS)}
    own = {"script": 2, "style": 1, "a": 1, "meta[http-equiv]": 1}
    assert {name: count for name, count in counts.items() if count} == own
    assert page.get_attribute("a", "href") == "#reports"


def test_hostile_evidence_is_shown_as_the_text_it_is(context: BrowserContext, hostile_report: Path) -> None:
    page = chromium.open_page(context.new_page(), hostile_report)
    open_everything(page)
    text = page.inner_text("#reports")
    for trick in (
        "</script><script>window.harmed=1</script>",
        "<img src=x onerror=window.harmed=1>",
        "{{ 7 * 7 }}",
    ):
        assert trick in text
    assert "annexe⟨U+202E⟩fdp.exe⟨U+2066⟩⟨U+200B⟩⟨U+2028⟩⟨U+001B⟩[31m⟨U+0000⟩" in text
    assert "javascript[:]window.harmed=1" in text
    whole = page.evaluate("document.documentElement.innerText")
    assert not [c for c in whole if not c.isprintable() and c not in "\n\t"]
    for live in ("https://evil", "http://", "javascript:window", "evil.example.com"):
        assert live not in whole


def test_the_policy_stops_what_another_hand_would_add(context: BrowserContext, report: Path) -> None:
    page = chromium.open_page(context.new_page(), report)
    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<p>'")
    with pytest.raises(Error, match="Trusted"):
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'ran = 1'}))"
        )
    assert page.evaluate("window.ran") is None
    refused = page.evaluate("""async () => {
      const told = [];
      addEventListener("securitypolicyviolation", (event) => told.push(event.effectiveDirective));
      document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:9/x.png" }));
      await fetch("http://127.0.0.1:9/").catch(() => {});
      await new Promise((done) => setTimeout(done, 50));
      return told.sort();
    }""")
    assert refused == ["connect-src", "img-src"]


def test_one_click_copies_the_real_indicator_or_by_choice_the_defanged_one(
    context: BrowserContext, report: Path
) -> None:
    page = chromium.open_page(context.new_page(), report)
    page.get_by_role("button", name="url ", exact=False).first.click()
    row = page.locator("#indicator-rows tr").first
    shown = row.locator(".mono").inner_text()
    assert shown.startswith("hxxps://")
    row.get_by_role("button", name="Copy").click()
    real = page.evaluate("navigator.clipboard.readText()")
    assert real == shown.replace("hxxps", "https").replace("[.]", ".")
    page.get_by_label("copy defanged").check()
    row.get_by_role("button", name="Copy").click()
    page.wait_for_function(
        "(shown) => navigator.clipboard.readText().then((text) => text === shown)", arg=shown
    )


def test_copy_all_takes_the_type_that_is_chosen(context: BrowserContext, report: Path) -> None:
    page = chromium.open_page(context.new_page(), report)
    page.get_by_role("button", name="domain ").click()
    page.get_by_role("button", name="Copy all").click()
    copied = page.evaluate("navigator.clipboard.readText()").split("\n")
    bundle = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    domains = [
        one["pattern"].split("'")[1] for one in bundle["objects"] if "domain-name" in one.get("pattern", "")
    ]
    assert sorted(copied) == sorted(domains)


@pytest.mark.parametrize(("button", "suffix"), [("CSV", ".csv"), ("STIX 2.1", ".json")])
def test_the_page_saves_the_same_files_as_the_command(
    context: BrowserContext, report: Path, tmp_path: Path, button: str, suffix: str
) -> None:
    page = chromium.open_page(context.new_page(), report)
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    download.value.save_as(tmp_path / "saved")
    assert download.value.suggested_filename.endswith(suffix)
    assert (tmp_path / "saved").read_bytes() == report.with_suffix(suffix).read_bytes()


def shown_ids(page: Page) -> int:
    return page.locator("details.report").count()


def test_searching_finds_real_and_defanged_spellings_alike(context: BrowserContext, report: Path) -> None:
    page = chromium.open_page(context.new_page(), report)
    everything = shown_ids(page)
    page.get_by_role("button", name="url ", exact=False).first.click()
    shown = page.locator("#indicator-rows .mono").first.inner_text()
    found = []
    for spelling in (shown, shown.replace("hxxps", "https").replace("[.]", "."), shown.upper()):
        page.get_by_label("Search reports").fill(spelling)
        found.append((shown_ids(page), page.locator("#indicator-rows tr").count()))
    assert found == [(1, 1)] * 3
    open_first(page)
    assert page.locator("tr.hit").count() >= 1
    page.get_by_label("Search reports").fill("no such thing anywhere")
    assert shown_ids(page) == 0
    assert page.locator("#found").inner_text().startswith("0 of ")
    assert page.locator("#no-reports").inner_text() == "No report matches the search and the filters."
    assert page.locator("#no-indicators").inner_text() == "No indicator matches the search."
    page.get_by_label("Search reports").fill("")
    assert shown_ids(page) == everything
    assert page.locator("#no-reports:visible, #no-indicators:visible").count() == 0


def test_filters_and_the_reports_of_an_indicator(context: BrowserContext, report: Path) -> None:
    page = chromium.open_page(context.new_page(), report)
    everything = shown_ids(page)
    page.get_by_label("malicious only").check()
    assert 0 < shown_ids(page) == page.locator(".badge.bad").count() < everything
    page.get_by_label("malicious only").uncheck()
    page.locator("#status").select_option("cleared")
    statuses = page.locator("details.report .pill").all_inner_texts()
    assert 0 < shown_ids(page) == statuses.count("cleared") < everything
    page.locator("#status").select_option("")
    page.get_by_role("button", name="1 report").first.click()
    assert shown_ids(page) == 1


def test_it_works_by_keyboard_alone(context: BrowserContext, report: Path) -> None:
    page = chromium.open_page(context.new_page(), report)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.locator("details.report summary").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("details[open] .evidence")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_malicious_evidence_stands_first_with_its_platform(context: BrowserContext, report: Path) -> None:
    page = chromium.open_page(context.new_page(), report)
    open_first(page)
    verdicts = page.locator("details[open] .verdict").all_inner_texts()
    assert verdicts[0] == "malicious"
    assert "malicious" not in verdicts[verdicts.count("malicious") :]
    assert "Win10" in page.locator("details[open] td.soft").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(browser: Browser, report: Path, scheme: Any) -> None:
    context = browser.new_context(viewport=DESKTOP, color_scheme=scheme)
    page = chromium.open_page(context.new_page(), report)
    open_first(page)
    page.get_by_label("Search reports").fill("host")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(17, 20, 27)") == (scheme == "dark")
    assert page.evaluate(FAINT) == []
    context.close()


@pytest.mark.parametrize("which", ["report", "hostile_report"])
def test_a_phone_shows_it_without_scrolling_sideways(
    browser: Browser, which: str, request: pytest.FixtureRequest
) -> None:
    context = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page = chromium.open_page(context.new_page(), request.getfixturevalue(which))
    open_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("figure .narrow").first.is_visible()
    assert not page.locator("figure .wide").first.is_visible()
    context.close()


def test_on_paper_every_indicator_is_there(context: BrowserContext, report: Path) -> None:
    page = chromium.open_page(context.new_page(), report)
    listed = len(json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))["objects"]) - 1
    assert page.locator("#indicator-rows tr").count() < listed
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.locator("#indicator-rows tr").count() == listed


def test_without_scripts_the_page_still_tells_what_matters(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    text = page.inner_text("main")
    assert "Scripts are off" in text
    assert "hxxps://" in text
    assert page.locator("figure svg").first.is_visible()
    context.close()


def test_the_page_has_landmarks_names_and_one_first_heading(context: BrowserContext, report: Path) -> None:
    page = chromium.open_page(context.new_page(), report)
    for role in ("banner", "main", "search", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.locator("svg:not([role=img][aria-label])").count() == 0
    assert page.evaluate(NAMELESS) == 0


def test_five_thousand_reports_open_and_are_searched_at_once(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are shown; what is asserted is ten times what an idle machine needs."""
    measured = measure(browser, tmp_path, reports=5000)
    with capsys.disabled():
        print(f"\n{measured}")  # noqa: T201 - the figures are what this is for
    assert measured.reports == 5000
    assert measured.open_seconds < 15
    assert measured.slowest_keystroke_seconds < 2
