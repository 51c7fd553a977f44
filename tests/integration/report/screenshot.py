"""README's picture of the report, from the sandbox's world: `make screenshot`."""

from __future__ import annotations

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import ViewportSize

from tap_forensics.sandbox.world import World
from tests.support.lab import START, open_lab
from tests.support.report import chromium
from tests.support.report.commands import run
from tests.support.tools import CHECKOUT

PICTURE = CHECKOUT / ".github" / "report.png"
SIZE = ViewportSize(width=1180, height=2020)


def make_report(folder: Path) -> Path:
    """Six hours of a made-up tenant, collected by the real run and reported by the real command."""
    world = World(3, start=START - timedelta(hours=6), end=START, messages_per_hour=12, clicks_per_hour=5)
    made = folder / "report.html"
    with open_lab(world, LOOKBACK_HOURS="6", EVENTS_PREFIX="tap-siem") as collected:
        collected.run()
        source = f"gs://{collected.bucket.name}/tap-"
        run("report", source, "-o", made, env={"STORAGE_EMULATOR_HOST": collected.bucket.url})
    return made


def main() -> int:
    path = chromium.found()
    if path is None:
        print("No Chromium on this machine; Debian's is `apt-get install chromium`.")
        return 1
    with tempfile.TemporaryDirectory() as folder, chromium.browser(path) as browser:
        page = browser.new_page(viewport=SIZE)
        chromium.open_page(page, make_report(Path(folder)))
        page.locator("#kinds button", has_text="domain").click()
        page.locator("details.report .badge").first.click()
        page.wait_for_selector(".evidence")
        page.evaluate("scrollTo(0, 0)")
        PICTURE.parent.mkdir(exist_ok=True)
        page.screenshot(path=PICTURE)
    print(f"{PICTURE.relative_to(CHECKOUT)}  {PICTURE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
