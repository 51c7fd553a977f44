"""`tap-forensics udm SOURCE`: the UDM events that SecOps' default parser is documented to make."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Any, TextIO

import click

from tap_forensics.cli.source_records import left_out, selected_records, selection_options
from tap_forensics.cli.terminal import json_line
from tap_forensics.report.records import Record, Report, Tally
from tap_forensics.report.selection import Selection
from tap_forensics.report.source import SourceFault
from tap_forensics.report.summaries import Summary, SummaryIndex
from tap_forensics.report.udm import ASSUMED, ASSUMED_OF_SUMMARIES, WRONG, Notes, Udm, udm_events

_MOST_SUMMARIES_WEIGHT = 200_000_000
_EPILOG = """\b
Examples:
  tap-forensics udm gs://BUCKET/tap-forensics/ > events.ndjson
  tap-forensics udm tap_forensics_20260304_100000.ndjson | jq .principal
  tap-forensics udm --json --notes notes.json folder/ > events.ndjson

\b
With --json: {"events": n, "reports": n, "summaries": n, "with_summary": n, "not_mappable": n,
              "without_time": n, "left_out": n, "odd_lines": n, "odd": [{"place": …, "why": …}],
              "not_mapped": {"type.field": n},
              "wrong": [{"fault": …, "events": n, "why": …}], "assumed": [sentence]}

\b
Exit codes: 0 events were written, 1 nothing readable in SOURCE, 2 wrong usage or no such SOURCE,
            130 interrupted.
"""


@click.command(epilog=_EPILOG)
@click.argument("source")
@click.option(
    "--notes",
    "notes_file",
    type=click.File("w", encoding="utf-8", lazy=False),
    help="Write the notes to this file instead of stderr.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the notes as one JSON object.")
@selection_options
def udm(source: str, notes_file: TextIO | None, as_json: bool, **wanted: Any) -> None:
    """Show the UDM events that SecOps' default parser is documented to make.

    SOURCE is a file, a folder, gs://bucket/prefix, or - for stdin. Each evidence item becomes one event, a
    line of JSON on stdout. The notes on stderr list what the parser does not map, what is wrong in its
    published table, and what had to be assumed. Threat summaries add severity, actors, malware and
    techniques to the events of their threat; from stdin, only if they come before its evidence.
    """
    tally, notes = Tally(), Notes()
    out = sys.stdout.buffer
    # If the events go to the terminal, they show the progress.
    live = not sys.stdout.isatty()
    with selected_records(source, Selection(**wanted), tally, live=live) as (records, _):
        for event in _events(records, notes):
            out.write(json_line(event).encode() + b"\n")
    out.flush()
    document = _document(tally, notes)
    sentences = [*_sentences(document), *filter(None, [left_out(tally)])]
    text = json_line(document) if as_json else "\n".join(sentences)
    click.echo(text, file=notes_file, err=notes_file is None)
    if not notes.events:
        raise click.exceptions.Exit(1)


def _events(records: Iterator[Record], notes: Notes) -> Iterator[Udm]:
    summaries = SummaryIndex()
    for record in records:
        if isinstance(record, Summary):
            if summaries.weight > _MOST_SUMMARIES_WEIGHT:
                raise SourceFault("SOURCE has more summaries than memory allows: give a part of it")
            summaries.add(record.threat_id, record)
        elif isinstance(record, Report):
            of_campaign = record.scope == "CAMPAIGN"
            summary = None if of_campaign else summaries.get(record.id) or summaries.get(record.threat_id)
            yield from udm_events(record, notes, summary)


def _document(tally: Tally, notes: Notes) -> dict[str, Any]:
    """The shape of `--json`."""
    return {
        "events": notes.events,
        "reports": tally.reports,
        "summaries": tally.summaries,
        "with_summary": notes.with_summary,
        "not_mappable": notes.not_mappable,
        "without_time": notes.without_time,
        "left_out": tally.without_time,
        "odd_lines": tally.odd_count,
        "odd": [{"place": place, "why": why} for place, why in tally.odd],
        "not_mapped": dict(notes.not_mapped.most_common()),
        "wrong": [
            {"fault": fault, "events": count, "why": WRONG[fault]}
            for fault, count in notes.wrong.most_common()
            if count
        ],
        "assumed": [*ASSUMED, *(ASSUMED_OF_SUMMARIES if notes.with_summary else ())],
    }


def _sentences(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['events']:,} events from {document['reports']:,} reports"]
    if document["not_mappable"]:
        lines.append(f"{document['not_mappable']:,} evidence items are not objects and are not mapped")
    if document["without_time"]:
        lines.append(f"{document['without_time']:,} events have no time: their line has no valid `generated`")
    if document["odd_lines"]:
        lines.append(f"{document['odd_lines']:,} invalid lines or parts of lines skipped:")
        lines += [f"  {entry['place']}: {entry['why']}" for entry in document["odd"]]
    if document["not_mapped"]:
        lines.append("Not mapped, with the number of items:")
        lines += _by_type(document["not_mapped"])
    if document["wrong"]:
        lines.append("Wrong in the published table:")
        lines += [_wrapped(f"{entry['events']:,} events: {entry['why']}") for entry in document["wrong"]]
    return [*lines, "Assumed, because the table does not say:", *map(_wrapped, document["assumed"])]


def _by_type(counts: dict[str, int]) -> list[str]:
    """`type: field 3, field 2`; fields of every type come first."""
    groups: dict[str, list[str]] = {"any type": []}
    for name, count in counts.items():
        kind, dot, rest = name.partition(".")
        groups.setdefault(kind if dot else "any type", []).append(f"{rest or name} {count:,}")
    return [_wrapped(f"{kind}: {', '.join(named)}") for kind, named in groups.items() if named]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
