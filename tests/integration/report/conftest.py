"""Samples of what the function writes, made by the real run on the sandbox's world; and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ViewportSize

from tap_forensics.sandbox.world import World
from tests.support.lab import START, Lab, open_lab
from tests.support.report import chromium, hostile
from tests.support.report.commands import run

DESKTOP = ViewportSize(width=1280, height=900)


@pytest.fixture(scope="package")
def collected() -> Iterator[Lab]:
    """A lab after one run with events: what it wrote lies in its bucket, as on the day of a deployment."""
    world = World(3, start=START - timedelta(hours=3), end=START, messages_per_hour=12, clicks_per_hour=5)
    with open_lab(world, LOOKBACK_HOURS="3", EVENTS_PREFIX="tap-siem") as made:
        assert made.run().stats.outcome == "complete"
        yield made


@pytest.fixture(scope="package")
def folder(collected: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same objects as files, the state object among them."""
    root = tmp_path_factory.mktemp("bucket")
    for name, data in collected.bucket.objects().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium.found()
    if path is None:
        pytest.skip("no Chromium on this machine; Debian's is `apt-get install chromium`")
    with chromium.browser(path) as started:
        yield started


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport=DESKTOP, accept_downloads=True)
    made.grant_permissions(["clipboard-read", "clipboard-write"])
    yield made
    made.close()


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the sandbox's world, its exports beside it."""
    made = tmp_path_factory.mktemp("report") / "report.html"
    beside = ("--csv", made.with_suffix(".csv"), "--stix", made.with_suffix(".json"))
    assert run("report", folder, "-o", made, *beside).returncode == 0
    return made


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile") / "report.html"
    completed = run("report", "-", "-o", made, stdin=hostile.lines())
    assert completed.returncode == 0, completed.stderr.decode()
    return made
