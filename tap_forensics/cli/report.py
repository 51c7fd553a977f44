"""`tap-forensics report SOURCE -o FILE.html`: the evidence as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tap_forensics.cli.source_records import left_out, selected_records, selection_options
from tap_forensics.cli.terminal import json_line
from tap_forensics.log import escape_unprintable
from tap_forensics.report.records import Tally
from tap_forensics.report.selection import Selection

if TYPE_CHECKING:
    # Its libraries are part of another extra.
    from tap_forensics.report.page.findings import Findings

_EPILOG = """\b
Examples:
  tap-forensics report gs://BUCKET/ -o report.html
  tap-forensics report folder/ -o report.html --csv iocs.csv --stix iocs.json
  tap-forensics report --malicious-only big/ -o small.html
  tap-forensics report gs://BUCKET/ --since 2026-11-20 --until 2026-11-21 --tenant acme -o acme.html

\b
With --json: {"written": {path: bytes}, "reports": n, "summaries": n, "events": n, "indicators": n,
              "left_out": {status: indicators}, "without_time": n,
              "odd_lines": n, "odd": [{"place": …, "why": …}]}

\b
Exit codes: 0 the page was written, 1 nothing readable in SOURCE, 2 wrong usage or no such SOURCE,
            130 interrupted.
"""
_NO_EXTRA = "`report` needs {name}: from a checkout, pip install '.[cli,report]'"
_LARGE_BYTES = 20_000_000
_LONGEST_PATH = 4096

_Path = click.Path(dir_okay=False, writable=True, path_type=Path)


@dataclass(frozen=True)
class Options:
    """The command's arguments."""

    source: str
    output: Path
    csv_file: Path | None
    stix_file: Path | None
    malicious_only: bool
    withdrawn: bool
    as_json: bool
    selection: Selection


@click.command(epilog=_EPILOG)
@click.argument("source")
@click.option("-o", "--output", type=_Path, required=True, metavar="FILE.html", help="The page to write.")
@click.option("--csv", "csv_file", type=_Path, help="Also write the malicious indicators as CSV.")
@click.option("--stix", "stix_file", type=_Path, help="Also write the malicious indicators as STIX 2.1.")
@click.option("--malicious-only", is_flag=True, help="Leave out all other evidence, for a smaller page.")
@click.option(
    "--withdrawn", is_flag=True, help="Also list indicators that TAP calls false positives or cleared."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object.")
@selection_options
def report(since: datetime | None, until: datetime | None, tenant: str | None, **options: Any) -> None:
    """Make one self-contained HTML page of the evidence, with its malicious indicators.

    SOURCE is a file, a folder, gs://bucket/prefix, or - for stdin. If it also has SIEM event lines (the whole
    bucket, for example), the page shows when mails and clicks came, and which threats were clicked on. If it
    has threat summaries, the page and the CSV show severity, actors, families, malware and techniques. The
    page loads nothing, and nothing in the evidence can run: it opens from a mail as well as from a disk.
    """
    wanted = Options(**options, selection=Selection(since, until, tenant))
    _refuse_same(wanted.output, wanted.csv_file, wanted.stix_file)
    try:
        from tap_forensics.report.page import findings, render  # noqa: F401, PLC0415 - part of another extra
    except ModuleNotFoundError as error:
        raise click.UsageError(_NO_EXTRA.format(name=error.name)) from None
    tally = Tally()
    with selected_records(wanted.source, wanted.selection, tally) as (records, say):
        found = findings.find(records, malicious_only=wanted.malicious_only)
        if not found.entries:
            raise click.ClickException(_nothing(tally))
        say(f"Making the page of {len(found.entries):,} reports")
        result = _write_all(wanted, found, tally)
    (_print_json if wanted.as_json else _print)(result, tally)


def _write_all(wanted: Options, findings: Findings, tally: Tally) -> dict[str, Any]:
    """The page and the exports. Returns what was written and what was left out."""
    from tap_forensics.report.page import exports as made_of  # noqa: PLC0415 - as above
    from tap_forensics.report.page.render import Exports, Origin, render_page  # noqa: PLC0415 - as above

    made = datetime.now(UTC)
    entries = findings.entries
    indicators = made_of.list_indicators(entries, withdrawn=wanted.withdrawn)
    exports = Exports(made_of.csv_text(indicators, entries), made_of.stix_text(indicators, entries, made))
    page = render_page(Origin(wanted.source, made, tally), findings, indicators, exports)
    texts = {wanted.output: page, wanted.csv_file: exports.csv, wanted.stix_file: exports.stix}
    return {
        "written": {str(path): _write(path, text) for path, text in texts.items() if path},
        "reports": len(findings.entries),
        "summaries": sum(any(entry.summary) for entry in findings.entries),
        "indicators": len(indicators),
        "left_out": dict(made_of.left_out(entries, indicators)),
    }


def _refuse_same(*paths: Path | None) -> None:
    named = [path.resolve() for path in paths if path]
    if len(set(named)) < len(named):
        raise click.UsageError("give the page, the CSV and the STIX file different names")


def _nothing(tally: Tally) -> str:
    named = "".join(f"\n  {place}: {why}" for place, why in tally.odd[:5])
    counts = f"{tally.lines:,} lines, {tally.events:,} events, {tally.odd_count:,} invalid"
    counts += f", {tally.without_time:,} without a time" if tally.without_time else ""
    return f"no report in SOURCE ({counts}){named}"


def _write(path: Path, text: str) -> int:
    """Returns the number of bytes."""
    try:
        return path.write_bytes(text.encode())
    except OSError as error:
        raise click.ClickException(
            f"could not write {escape_unprintable(str(path), _LONGEST_PATH)}: {error.strerror}"
        ) from None


def _print_json(result: dict[str, Any], tally: Tally) -> None:
    odd = [{"place": place, "why": why} for place, why in tally.odd]
    counts = {"events": tally.events, "without_time": tally.without_time, "odd_lines": tally.odd_count}
    click.echo(json_line(result | counts | {"odd": odd}))


def _print(result: dict[str, Any], tally: Tally) -> None:
    for name, size_bytes in result["written"].items():
        click.echo(f"{escape_unprintable(name, _LONGEST_PATH)}  {size_bytes:,} bytes")
    counts = f"{result['reports']:,} reports, {tally.events:,} events"
    click.echo(f"{counts}, {result['indicators']:,} malicious indicators")
    if result["left_out"]:
        by_status = ", ".join(f"{count:,} {status}" for status, count in result["left_out"].items())
        click.echo(
            f"Left out, because TAP withdrew their reports: {by_status} indicators (--withdrawn lists them).",
            err=True,
        )
    if words := left_out(tally):
        click.echo(words, err=True)
    if tally.odd_count:
        click.echo(f"{tally.odd_count:,} invalid lines or parts of lines skipped:", err=True)
        for place, why in tally.odd:
            click.echo(f"  {place}: {why}", err=True)
    if max(result["written"].values()) > _LARGE_BYTES:
        click.echo(
            "Over 20 MB, which many mail systems reject: --malicious-only makes a smaller page.", err=True
        )
