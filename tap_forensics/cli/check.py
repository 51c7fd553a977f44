"""`tap-forensics check`: the doctor. A line a finding, good ones too, each fault with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from tap_forensics.cli.check_bucket import probe_objects, probe_rights, probe_state
from tap_forensics.cli.check_tap import probe_tap
from tap_forensics.cli.context import Desk, Exit, at_a_desk
from tap_forensics.cli.diagnosis import SIGNS, STYLES, Finding, ok, wrong
from tap_forensics.cli.terminal import shown
from tap_forensics.config.settings import Settings
from tap_forensics.errors import SettingsFault, StorageFailed
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
@at_a_desk
def check(desk: Desk) -> Exit:
    """The doctor: settings, credentials, rights, state, objects, clock and calls.

    Reads only. Credentials are tried as the vendor's guide does it, by five minutes of events; rights on
    the bucket are those of the Google identity that you run this with.
    """
    findings = []
    for finding in _examine(desk):
        findings.append(finding)
        if not desk.as_json:
            _show(desk, finding)
    good = not any(finding.mark == "wrong" for finding in findings)
    if desk.as_json:
        desk.give({"good": good, "findings": [asdict(finding) for finding in findings]})
    return Exit.GOOD if good else Exit.WRONG


def _examine(desk: Desk) -> Iterator[Finding]:
    try:
        settings = desk.settings()
    except SettingsFault as fault:
        for sentence in fault.faults:
            yield wrong("settings", sentence)
        return
    yield ok("settings", "all variables hold what is allowed")
    yield from probe_tap(settings, desk.clock)
    yield from _bucket(desk, settings)


def _bucket(desk: Desk, settings: Settings) -> Iterator[Finding]:
    """The first failure of the storage itself ends it: what comes after would fail likewise."""
    try:
        with desk.client(settings) as client:
            yield from probe_rights(desk, client, settings)
            bucket = Bucket(client, settings.gcs_bucket, lambda: _BUCKET_SECONDS)
            yield from probe_state(bucket, settings, desk.clock)
            yield from probe_objects(client, settings, desk.clock.now())
    except StorageFailed as error:
        words, _, remedy = str(error).partition("; ")
        yield wrong("bucket", words, remedy)


def _show(desk: Desk, finding: Finding) -> None:
    line = shown(SIGNS[finding.mark], STYLES[finding.mark])
    line.append_text(shown(f" {finding.about}: {finding.words}"))
    desk.out.print(line, soft_wrap=True)
    if finding.remedy:
        desk.out.print(shown(f"    → {finding.remedy}", "dim"), soft_wrap=True)
