"""`tap-forensics report SOURCE -o FILE.html`: the evidence as one page for a person."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tap_forensics.cli.terminal import json_line
from tap_forensics.log import escape_unprintable
from tap_forensics.report.records import Tally, read_records
from tap_forensics.report.source import source_lines

_EPILOG = """\b
Examples:
  tap-forensics report gs://BUCKET/ -o report.html
  tap-forensics report folder/ -o report.html --csv iocs.csv --stix iocs.json
  tap-forensics report --malicious-only big/ -o small.html

\b
With --json: {"written": {path: bytes}, "reports": n, "events": n, "indicators": n,
              "left_out": {status: indicators}, "odd_lines": n, "odd": [{"place": …, "why": …}]}

\b
Exit codes: 0 the page was written, 1 nothing readable in SOURCE, 2 wrong usage or no such SOURCE.
"""
_NO_EXTRA = "`report` needs {name}: from a checkout, pip install '.[cli,report]'"
_LARGE_BYTES = 20_000_000
_LONGEST_PATH = 4096

_Path = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(epilog=_EPILOG)
@click.argument("source")
@click.option("-o", "--output", type=_Path, required=True, metavar="FILE.html", help="The page to write.")
@click.option("--csv", "csv_file", type=_Path, help="The malicious indicators as CSV, too.")
@click.option("--stix", "stix_file", type=_Path, help="The malicious indicators as STIX 2.1, too.")
@click.option("--malicious-only", is_flag=True, help="Leave out all other evidence: a smaller page.")
@click.option(
    "--withdrawn", is_flag=True, help="List indicators that TAP calls false positives or cleared, too."
)
@click.option("--json", "as_json", is_flag=True, help="What was written, as one JSON object.")
def report(
    source: str,
    output: Path,
    csv_file: Path | None,
    stix_file: Path | None,
    malicious_only: bool,
    withdrawn: bool,
    as_json: bool,
) -> None:
    """Make one self-contained HTML page of the evidence, with its malicious indicators.

    SOURCE is a file, a folder, gs://bucket/prefix, or - for stdin. With SIEM event lines beside the evidence
    (the whole bucket, say) the page tells when mails and clicks came, and which threats were clicked on. It
    loads nothing, and what stands in the evidence cannot run: it opens from mail as well as from a disk.
    """
    _refuse_same(output, csv_file, stix_file)
    try:
        from tap_forensics.report.page.exports import csv_text, left_out, list_indicators, stix_text  # noqa: PLC0415
        from tap_forensics.report.page.findings import find  # noqa: PLC0415
        from tap_forensics.report.page.render import Exports, render_page  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(_NO_EXTRA.format(name=error.name)) from None
    tally = Tally()
    records = read_records(source_lines(source, sys.stdin.buffer), tally)
    findings = find(records, malicious_only=malicious_only)
    if not findings.entries:
        raise click.ClickException(_nothing(tally))
    made = datetime.now(UTC)
    indicators = list_indicators(findings.entries, withdrawn=withdrawn)
    exports = Exports(csv_text(indicators, findings.entries), stix_text(indicators, findings.entries, made))
    page = render_page(source, made, findings, indicators, exports, tally)
    texts = {output: page, csv_file: exports.csv, stix_file: exports.stix}
    written = {str(path): _write(path, text) for path, text in texts.items() if path}
    told = {"written": written, "reports": len(findings.entries), "indicators": len(indicators)}
    (_give if as_json else _tell)(told | {"left_out": dict(left_out(findings.entries, indicators))}, tally)


def _refuse_same(*paths: Path | None) -> None:
    named = [path.resolve() for path in paths if path]
    if len(set(named)) < len(named):
        raise click.UsageError("the page, the CSV and the STIX file need a name each")


def _nothing(tally: Tally) -> str:
    named = "".join(f"\n  {place}: {why}" for place, why in tally.odd[:5])
    counts = f"{tally.lines:,} lines, {tally.events:,} events, {tally.odd_count:,} odd"
    return f"no report in SOURCE ({counts}){named}"


def _write(path: Path, text: str) -> int:
    """Bytes written."""
    try:
        return path.write_bytes(text.encode())
    except OSError as error:
        raise click.ClickException(
            f"could not write {escape_unprintable(str(path), _LONGEST_PATH)}: {error.strerror}"
        ) from None


def _give(told: dict[str, Any], tally: Tally) -> None:
    odd = [{"place": place, "why": why} for place, why in tally.odd]
    click.echo(json_line(told | {"events": tally.events, "odd_lines": tally.odd_count, "odd": odd}))


def _tell(told: dict[str, Any], tally: Tally) -> None:
    for name, size_bytes in told["written"].items():
        click.echo(f"{escape_unprintable(name, _LONGEST_PATH)}  {size_bytes:,} bytes")
    counts = f"{told['reports']:,} reports, {tally.events:,} events"
    click.echo(f"{counts}, {told['indicators']:,} malicious indicators")
    if told["left_out"]:
        by_status = ", ".join(f"{count:,} {status}" for status, count in told["left_out"].items())
        click.echo(
            f"Left out as TAP took their reports back: {by_status} indicators (--withdrawn lists them).",
            err=True,
        )
    if tally.odd_count:
        click.echo(f"{tally.odd_count:,} odd lines or parts of lines passed over:", err=True)
        for place, why in tally.odd:
            click.echo(f"  {place}: {why}", err=True)
    if max(told["written"].values()) > _LARGE_BYTES:
        click.echo(
            "Over 20 MB, which many mail systems refuse: --malicious-only makes a smaller page.", err=True
        )
