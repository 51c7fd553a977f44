"""`tap-forensics check`: the health check. One line for each finding, each fault with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

import click

from tap_forensics.cli.check_bucket import check_objects, check_state
from tap_forensics.cli.check_rights import check_rights
from tap_forensics.cli.check_tap import check_tap
from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.diagnosis import Finding, ok, wrong
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
Ends with 1 if a line has ✗, with 2 if the settings are wrong. It makes one SIEM call, which the
count of calls in the state does not include.
--json: {"good": true|false, "findings": [{"mark": "ok"|"warning"|"wrong", "about", "words", "remedy"}]}
"""
)
@cli_command
def check(context: CommandContext) -> Exit:
    """Check settings, credentials, rights, state, objects, clock and calls.

    Reads only. Tries the credentials as the vendor's guide does, with five minutes of events. The rights on
    the bucket are those of the Google identity that you run this with.
    """
    try:
        settings = context.settings()
    except InvalidSettings as error:
        _report(context, [wrong("settings", sentence) for sentence in error.faults])
        return Exit.USAGE
    good = _report(context, _examine(context, settings))
    return Exit.GOOD if good else Exit.WRONG


def _report(context: CommandContext, findings: Iterable[Finding]) -> bool:
    """Each finding as it comes, or all as JSON. Returns whether all is well."""
    seen = []
    for finding in findings:
        seen.append(finding)
        if not context.as_json:
            context.print_finding(finding)
    good = not any(finding.mark == "wrong" for finding in seen)
    if context.as_json:
        context.print_json({"good": good, "findings": [asdict(finding) for finding in seen]})
    return good


def _examine(context: CommandContext, settings: Settings) -> Iterator[Finding]:
    yield ok("settings", "all variables have allowed values")
    yield from check_tap(settings, context.clock)
    yield from _bucket(context, settings)


def _bucket(context: CommandContext, settings: Settings) -> Iterator[Finding]:
    """Ends at the first failure of the storage itself: the rest would fail too."""
    try:
        with context.client(settings) as client:
            yield from check_rights(context, client, settings)
            bucket = Bucket(client, settings.bucket.name, lambda: _BUCKET_SECONDS)
            yield from check_state(bucket, settings, context.clock)
            yield from check_objects(client, settings, context.clock.now())
    except StorageFailed as error:
        words, _, remedy = str(error).partition("; ")
        yield wrong("bucket", words, remedy)
