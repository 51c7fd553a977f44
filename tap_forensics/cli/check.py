"""`tap-forensics check`: the health check. One line for each finding, each fault with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tap_forensics.cli.check_bucket import check_objects, check_state
from tap_forensics.cli.check_rights import check_rights
from tap_forensics.cli.check_tap import check_tap
from tap_forensics.cli.context import CommandContext, Exit, cli_command
from tap_forensics.cli.diagnosis import Finding, ok, wrong
from tap_forensics.config.settings import Settings
from tap_forensics.errors import InvalidSettings, StorageFailed
from tap_forensics.storage.bucket import Bucket

if TYPE_CHECKING:
    from tap_forensics.secops.connection import Instance

_BUCKET_SECONDS = 30


@click.command(
    epilog="""\b
Examples:
  tap-forensics check
  tap-forensics check --secops --customer-id UUID --project-id PROJECT --region europe
  gcloud auth application-default login --impersonate-service-account=ACCOUNT  # then: as the function
\b
Ends with 1 if a line has ✗, with 2 if the settings are wrong. It makes one SIEM call, which the
count of calls in the state does not include.
--secops takes missing options from CHRONICLE_CUSTOMER_ID, CHRONICLE_PROJECT_ID and CHRONICLE_REGION,
then from the configuration file of Google's own command `secops`.
--json: {"good": true|false, "findings": [{"mark": "ok"|"warning"|"wrong", "about", "words", "remedy"}]}
"""
)
@click.option(
    "--secops", is_flag=True, help="Ask SecOps too: feeds, parsers on real lines, arrival (extra `secops`)."
)
@click.option("--customer-id", envvar="CHRONICLE_CUSTOMER_ID", metavar="UUID", help="The SecOps instance.")
@click.option("--project-id", envvar="CHRONICLE_PROJECT_ID", metavar="ID", help="The project of SecOps.")
@click.option("--region", envvar="CHRONICLE_REGION", metavar="NAME", help="Its region; default: us.")
@cli_command
def check(context: CommandContext, *, secops: bool, **where: str | None) -> Exit:
    """Check settings, credentials, rights, state, objects, clock and calls.

    Reads only. Tries the credentials as the vendor's guide does, with five minutes of events. The rights on
    the bucket are those of the Google identity that you run this with.
    """
    try:
        settings = context.settings()
    except InvalidSettings as error:
        _report(context, [wrong("settings", sentence) for sentence in error.faults])
        return Exit.USAGE
    instance = _instance(context, where) if secops else None
    good = _report(context, _examine(context, settings, instance))
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


def _instance(context: CommandContext, where: dict[str, str | None]) -> Instance:
    """Raises `click.UsageError`."""
    try:
        from tap_forensics.cli.check_secops import chosen_instance  # noqa: PLC0415 - part of another extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "secops":
            raise
        raise click.UsageError("--secops needs the extra `secops`: pip install '.[cli,secops]'") from None
    return chosen_instance(where, context.environ)


def _examine(context: CommandContext, settings: Settings, instance: Instance | None) -> Iterator[Finding]:
    yield ok("settings", "all variables have allowed values")
    yield from check_tap(settings, context.clock)
    yield from _bucket(context, settings)
    if instance is not None:
        from tap_forensics.cli.check_secops import check_secops  # noqa: PLC0415 - part of another extra

        yield from check_secops(context, settings, instance)


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
