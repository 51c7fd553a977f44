"""SecOps' part of the health check: the feeds, the parsers on real lines, the newest line's arrival."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import click
from google.cloud.storage import Client
from secops.cli.utils.config_utils import load_config

from tap_forensics.cli.check_feeds import check_feeds
from tap_forensics.cli.check_parsers import check_parser
from tap_forensics.cli.context import CommandContext
from tap_forensics.cli.diagnosis import Finding, ok, warning, wrong
from tap_forensics.cli.secops_kinds import Kind, Sample, kinds, newest_sample
from tap_forensics.cli.terminal import ago
from tap_forensics.config.settings import Settings
from tap_forensics.errors import StorageFailed
from tap_forensics.secops.connection import Instance, Secops, connect
from tap_forensics.secops.failures import SecopsFailed
from tap_forensics.secops.feeds import list_feeds
from tap_forensics.secops.samples import line_id
from tap_forensics.secops.search import Wanted, count_raw_logs, has_events

# A server of the tests: only on loopback, and without credentials.
EMULATOR = "SECOPS_EMULATOR_HOST"
_LOOPBACK = re.compile(r"http://(?:localhost|127\.0\.0\.1|\[::1\]):[0-9]{1,5}")
# The values become parts of an address.
_ALLOWED = {
    "customer_id": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "project_id": r"[a-z0-9][a-z0-9.:-]{1,62}",
    "region": r"[a-z][a-z0-9-]{1,30}",
}
# Longer than the intervals in which feeds are seen to read.
_PATIENCE = timedelta(hours=2)
# Events may be older than the line.
_SEARCHED_BEFORE = timedelta(days=2)


def chosen_instance(given: Mapping[str, str | None], environ: Mapping[str, str]) -> Instance:
    """From options or variables, else from the configuration file of the client's own command line.

    Raises `click.UsageError`.
    """
    saved = load_config()
    values = {name: str(given[name] or saved.get(name) or "") for name in _ALLOWED}
    values["region"] = values["region"] or "us"
    for name, pattern in _ALLOWED.items():
        option = f"--{name.replace('_', '-')}"
        if not values[name]:
            raise click.UsageError(
                f"--secops needs {option}: SecOps, Settings, SIEM Settings, Profile shows it"
            )
        if not re.fullmatch(pattern, values[name]):
            raise click.UsageError(f"{option} {values[name][:80]!a} is not allowed: it must match {pattern}")
    return Instance(**values, emulator=_emulator(environ))


def check_secops(context: CommandContext, settings: Settings, instance: Instance) -> Iterator[Finding]:
    """Ends at the first failure that every further question would meet. Writes nothing."""
    try:
        with connect(instance, context.clock) as secops, context.client(settings) as client:
            yield from _examine(context, client, settings, secops)
    except SecopsFailed as failed:
        yield wrong("secops", failed.words, failed.remedy)
    except StorageFailed as error:
        words, _, remedy = str(error).partition("; ")
        yield wrong("bucket", words, remedy)


def _emulator(environ: Mapping[str, str]) -> str | None:
    address = environ.get(EMULATOR, "")
    if address and not _LOOPBACK.fullmatch(address):
        raise click.UsageError(f"{EMULATOR} is only for a server on loopback, such as http://127.0.0.1:9024")
    return address or None


def _examine(
    context: CommandContext, client: Client, settings: Settings, secops: Secops
) -> Iterator[Finding]:
    try:
        feeds, odd = list_feeds(secops)
    except SecopsFailed as failed:
        if failed.final or failed.status == 404:
            raise
        yield wrong("feed", failed.words, failed.remedy)
    else:
        if odd:
            yield warning("feed", f"{odd} entries in the list of feeds could not be read")
        yield from check_feeds(context, client, settings, secops, feeds)
    all_kinds = kinds(settings)
    for kind in all_kinds:
        sample = newest_sample(client, settings.bucket.name, kind, context.clock.now())
        if sample is None:
            words = f"no line of the last 7 days in gs://{settings.bucket.name}/{kind.feed.folder} to try"
            yield warning("parser", f"{kind.log_type}: {words}", "let the function run first")
            continue
        yield from _or_why_not("parser", check_parser(secops, kind, sample, settings))
        yield from _or_why_not("arrival", _arrival(secops, kind, sample, all_kinds, context.clock.now()))


def _or_why_not(about: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except SecopsFailed as failed:
        if failed.final:
            raise
        yield wrong(about, failed.words, failed.remedy)


def _arrival(
    secops: Secops, kind: Kind, sample: Sample, all_kinds: list[Kind], now: datetime
) -> Iterator[Finding]:
    """All kinds of lines may hold the same id. The field before it tells most of them apart."""
    threat_id = line_id(sample.line, kind.id_field)
    since = sample.updated - _SEARCHED_BEFORE
    place = f"(threat {threat_id} in {sample.place})"
    others = frozenset(other.log_type for other in all_kinds if other != kind)
    wanted = Wanted(kind.log_type, f"[^_]{kind.id_field}.{{3,6}}{threat_id}", others)
    if not count_raw_logs(secops, wanted, since, now):
        yield _not_there(kind.log_type, place, sample.updated, now)
    elif has_events(secops, kind.log_type, since, now):
        words = f"{kind.log_type}: the newest line is in SecOps, which has events of this type {place}"
        yield ok("arrival", words)
    else:
        words = f"{kind.log_type}: the newest line is in SecOps, but no event of this type {place}"
        remedy = "see the finding on its parser; SecOps lists parsing errors under Data Ingestion and Health"
        yield wrong("arrival", words, remedy)


def _not_there(log_type: str, place: str, updated: datetime, now: datetime) -> Finding:
    words = f"{log_type}: the newest line is not in SecOps; it was written {ago(updated, now)} {place}"
    if now - updated < _PATIENCE:
        return warning("arrival", words, "try again later: a feed reads in intervals")
    return wrong("arrival", words, "see the findings on the feed; it skips objects over its maximum file age")
