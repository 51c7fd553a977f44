"""How large the report's page is, how long it takes to open, and how long from a keystroke to its result.

python -m tests.bench.page [REPORTS]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser

from tap_forensics.sandbox.world import World
from tests.support.lab import START
from tests.support.report import chromium
from tests.support.report.commands import run

TYPED = "host-12.example"
_KEYSTROKE = """(text) => new Promise((done) => {
  const field = document.getElementById("query");
  const began = performance.now();
  field.value = text;
  field.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => setTimeout(() => done((performance.now() - began) / 1000)));
})"""


@dataclass(frozen=True)
class Measured:
    """`open_seconds` is until the list stands and can be searched."""

    reports: int
    items: int
    lines_bytes: int
    page_bytes: int
    making_seconds: float
    open_seconds: float
    keystroke_seconds: float
    slowest_keystroke_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.reports:,} reports with {self.items:,} items ({self.lines_bytes / 1e6:.1f} MB of lines): "
            f"page {self.page_bytes / 1e6:.1f} MB, made in {self.making_seconds:.1f} s, "
            f"opens in {self.open_seconds:.2f} s, a keystroke takes {self.keystroke_seconds * 1000:.0f} ms "
            f"(the slowest {self.slowest_keystroke_seconds * 1000:.0f} ms)"
        )


def lines(reports: int) -> Iterator[bytes]:
    """A report a line, each of its own evidence of every type, and the events that name the threats."""
    world = World.from_threats(reports, now=START, campaigns=60, threats_per_campaign=40)
    world.reports.report_bytes = world.reports.campaign_report_bytes = None
    for threat in world.threats.values():
        answer = json.loads(world.forensics_bytes(threat.id) or b"{}")
        ours = {"generated": answer["generated"], "_threatId": threat.id, "_campaignId": threat.campaign}
        yield json.dumps({**answer["reports"][0], **ours}).encode()
    for event in world.events:
        yield json.dumps({event.kind: [event.body]}).encode()


def measure(browser: Browser, folder: Path, reports: int) -> Measured:
    """Typed letter by letter, so that the first letters find much and the last ones little."""
    source, file = folder / "lines.ndjson", folder / "page.html"
    source.write_bytes(b"\n".join(lines(reports)))
    began = time.monotonic()
    result = run("report", "--json", source, "-o", file)
    making_seconds = time.monotonic() - began
    page = browser.new_page()
    began = time.monotonic()
    chromium.open_page(page, file)
    open_seconds = time.monotonic() - began
    strokes = [page.evaluate(_KEYSTROKE, TYPED[:length]) for length in range(1, len(TYPED) + 1)]
    items = page.evaluate(
        "JSON.parse(document.getElementById('data').textContent).reports.reduce((n, r) => n + r.total, 0)"
    )
    page.close()
    return Measured(
        reports=json.loads(result.stdout)["reports"],
        items=items,
        lines_bytes=source.stat().st_size,
        page_bytes=file.stat().st_size,
        making_seconds=making_seconds,
        open_seconds=open_seconds,
        keystroke_seconds=statistics.median(strokes),
        slowest_keystroke_seconds=max(strokes),
    )


def main(arguments: list[str]) -> int:
    path = chromium.found()
    if path is None:
        print("The page is not measured: no Chromium on this machine.")
        return 0
    with tempfile.TemporaryDirectory() as folder, chromium.browser(path) as browser:
        print(measure(browser, Path(folder), int(arguments[0]) if arguments else 5000))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
