"""The Chromium that this machine has, driven by playwright: nothing is downloaded for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def found() -> str | None:
    """Its path."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


@contextmanager
def browser(path: str) -> Iterator[Browser]:
    """Headless, with a new profile that goes away. For root, Chromium's own sandbox must be off."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, chromium_sandbox=False, headless=True, args=list(_QUIET)
        )
        try:
            yield started
        finally:
            started.close()


def open_page(page: Page, file: Path) -> Page:
    """Opens a report and waits until its list stands."""
    page.goto(file.as_uri())
    page.wait_for_selector("details.report")
    return page
