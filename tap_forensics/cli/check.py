"""`tap-forensics check`: the doctor. A line a finding, good ones too, each fault with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from tap_forensics.cli.check_bucket import probe_objects, probe_rights, probe_state
from tap_forensics.cli.check_tap import probe_tap
from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.diagnosis import SIGNS, STYLES, Finding, ok, wrong
from tap_forensics.cli.terminal import safe_text
from tap_forensics.config.settings import Settings
from tap_forensics.errors import InvalidSettings, StorageFailed
from tap_forensics.storage.bucket import Bucket

_BUCKET_SECONDS = 30


@click.command(
    epilog="""\b
Examples:
  tap-forensics check
  gcloud auth application-default login --impersonate-service-account=ACCOUNT  # then: as the function
\b
Ends with 1 where a line has ✗. It makes one SIEM call, of which the state's count does not hear.
--json: {"good": true|false, "findings": [{"mark": "ok"|"warning"|"wrong", "about", "words", "remedy"}]}
"""
)
@cli_command
def check(context: CommandContext) -> Exit:
    """The doctor: settings, credentials, rights, state, objects, clock and calls.

    Reads only. Credentials are tried as the vendor's guide does it, by five minutes of events; rights on
    the bucket are those of the Google identity that you run this with.
    """
    findings = []
    for finding in _examine(context):
        findings.append(finding)
        if not context.as_json:
            _show(context, finding)
    good = not any(finding.mark == "wrong" for finding in findings)
    if context.as_json:
        context.print_json({"good": good, "findings": [asdict(finding) for finding in findings]})
    return Exit.GOOD if good else Exit.WRONG


def _examine(context: CommandContext) -> Iterator[Finding]:
    try:
        settings = context.settings()
    except InvalidSettings as fault:
        for sentence in fault.faults:
            yield wrong("settings", sentence)
        return
    yield ok("settings", "all variables hold what is allowed")
    yield from probe_tap(settings, context.clock)
    yield from _bucket(context, settings)


def _bucket(context: CommandContext, settings: Settings) -> Iterator[Finding]:
    """The first failure of the storage itself ends it: what comes after would fail likewise."""
    try:
        with context.client(settings) as client:
            yield from probe_rights(context, client, settings)
            bucket = Bucket(client, settings.bucket.name, lambda: _BUCKET_SECONDS)
            yield from probe_state(bucket, settings, context.clock)
            yield from probe_objects(client, settings, context.clock.now())
    except StorageFailed as error:
        words, _, remedy = str(error).partition("; ")
        yield wrong("bucket", words, remedy)


def _show(context: CommandContext, finding: Finding) -> None:
    line = safe_text(SIGNS[finding.mark], STYLES[finding.mark])
    line.append_text(safe_text(f" {finding.about}: {finding.words}"))
    context.out.print(line, soft_wrap=True)
    if finding.remedy:
        context.out.print(safe_text(f"    → {finding.remedy}", "dim"), soft_wrap=True)
