"""A generated tenant on this machine, and the screens that the commands show in it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from click.testing import CliRunner, Result

from tap_forensics.cli.main import tap_forensics
from tap_forensics.config.settings import VARIABLES
from tap_forensics.sandbox.demo import demo
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.support.secops_api import CUSTOMER, PROJECT, REGION, reads, secops_api

BUCKET = "demo-bucket"
STATE = "state/tap-forensics/state.json"
_SHOWN_URL = "http://127.0.0.1:40001"
_LONGEST_LINE = 110
_LINES_OF_NOTES = 12
# Of the demo's output the tutorial leaves out the samples of lines and states.
_SAMPLES = ("One line", "One event", "state/", "tap-forensics/")


@dataclass
class LocalTenant:
    """Runs `tap-forensics` commands in this process; files go to a folder that is deleted at the end."""

    tap: TapServer
    bucket: FakeBucket
    folder: Path
    env: dict[str, str]
    now: datetime = field(default_factory=utc_now)

    def call(self, line: str, typed: str | None = None, **env: str) -> Result:
        """One command line without its `tap-forensics`."""
        unset: dict[str, str | None] = dict.fromkeys([v.name for v in VARIABLES] + ["STORAGE_EMULATOR_HOST"])
        with contextlib.chdir(self.folder):
            return CliRunner().invoke(
                tap_forensics, shlex.split(line), input=typed, env=unset | self.env | env
            )

    def screen(self, line: str, typed: str | None = None, *, code: int = 0, **env: str) -> str:
        """The command line and what it shows, as a fenced block. Raises if it does not end with `code`."""
        called = self.call(line, typed, **env)
        if called.exit_code != code:
            raise AssertionError(f"tap-forensics {line} ended with {called.exit_code}:\n{called.output}")
        logs_left_out = called.stdout if line.startswith(("run", "report")) else called.output
        return block(f"$ tap-forensics {line}", logs_left_out.replace(self.tap.url, _SHOWN_URL))


@contextmanager
def local_tenant() -> Iterator[LocalTenant]:
    """A day of events, and an empty bucket."""
    now = utc_now()
    world = World(
        5,
        start=now - timedelta(hours=26),
        end=now - timedelta(minutes=5),
        messages_per_hour=16,
        clicks_per_hour=5,
        campaigns=3,
    )
    with TapServer(world) as tap, FakeBucket(BUCKET) as bucket, TemporaryDirectory() as folder:
        env = {
            "GCS_BUCKET": bucket.name,
            "STORAGE_EMULATOR_HOST": bucket.url,
            "TAP_API_BASE": tap.url,
            "TAP_PRINCIPAL": tap.principal,
            "TAP_SECRET": tap.secret,
            "LOOKBACK_HOURS": "3",
            "LEASE_SECONDS": "1",
            "EVENTS_PREFIX": "tap-siem",
            # One after the other, so that everything comes in the same order each time.
            "FETCH_CONCURRENCY": "1",
        }
        yield LocalTenant(tap, bucket, Path(folder), env)


def screens() -> dict[str, str]:
    """Every screen by its name, in the order in which an operator meets them."""
    with local_tenant() as tenant:
        shown = {
            name: tenant.screen(line)
            for name, line in {
                "run": "run",
                "check": "check",
                "status": "status",
                "report": f"report gs://{BUCKET}/tap- -o report.html --csv iocs.csv --stix iocs.json",
                "backfill": f"backfill --from {_hour(tenant, 20)} --to {_hour(tenant, 8)} --dry-run",
                "state show": "state show",
            }.items()
        }
        secops = _secops(tenant)
        return {**shown, "udm": _udm(tenant), **secops, **_audit(tenant), **_repair(tenant)}


def _hour(tenant: LocalTenant, hours_ago: int) -> str:
    return f"{tenant.now - timedelta(hours=hours_ago):%Y-%m-%dT%H:00Z}"


def _udm(tenant: LocalTenant) -> str:
    line = f"udm gs://{BUCKET}/tap-forensics/ --notes notes.txt"
    tenant.screen(line)
    notes = (tenant.folder / "notes.txt").read_text(encoding="utf-8").splitlines()
    first = "\n".join([*notes[:_LINES_OF_NOTES], "…"])
    return block(f"$ tap-forensics {line} > events.ndjson\n$ head -{_LINES_OF_NOTES} notes.txt", first)


def _secops(tenant: LocalTenant) -> dict[str, str]:
    """The parser reads the other shape and a feed has failed; then both are put right."""
    log_types = {"tap-forensics": "PROOFPOINT_TAP_FORENSICS", "tap-siem": "PROOFPOINT_MAIL"}
    place = {
        "CHRONICLE_CUSTOMER_ID": CUSTOMER,
        "CHRONICLE_PROJECT_ID": PROJECT,
        "CHRONICLE_REGION": REGION,
    }
    with secops_api() as api:
        env = {"SECOPS_EMULATOR_HOST": api.url, **place}
        api.set_up(BUCKET, **{log_type: folder for folder, log_type in log_types.items()})
        for name, data in tenant.bucket.objects("tap-").items():
            api.raw_logs += [(log_types[name.split("/")[0]], line) for line in data.decode().splitlines()]
        api.run = reads("response")
        works = api.feeds[1]
        api.feeds[1] = works | {"state": "FAILED", "failureDetails": _NO_ACCESS}
        trouble = tenant.screen("check --secops", code=1, **env)
        api.feeds[1] = works
        good = tenant.screen("check --secops", code=0, **env, RECORD_SHAPE="response")
    return {"check secops in trouble": _from(" feed: ", trouble), "check secops": _from(" feed: ", good)}


def _from(word: str, screen: str) -> str:
    """Without the lines before the first that has this word."""
    fence, command, *lines = screen.splitlines()
    start = next(number for number, line in enumerate(lines) if word in line)
    return "\n".join([fence, command, "…", *lines[start:], ""])


_NO_ACCESS = {
    "errorCode": "ACCESS_DENIED",
    "httpErrorCode": 403,
    "errorCause": "The account may not list the bucket",
    "errorAction": "Grant it roles/storage.legacyBucketReader",
}


def _audit(tenant: LocalTenant) -> dict[str, str]:
    """Of what the run has read: first complete, then with a threat that was lost."""
    # Not by the hour: the same events are in it whenever this runs.
    line = f"audit --from {tenant.now - timedelta(hours=2, minutes=45):%Y-%m-%dT%H:%MZ}"
    complete = tenant.screen(f"{line} --html completeness.html")
    _lose_a_threat(tenant)
    return {"audit": complete, "audit repair": tenant.screen(f"{line} --repair", code=1)}


def _lose_a_threat(tenant: LocalTenant) -> None:
    """Neither the bucket nor the state has it, as if it had never been collected."""
    [name] = [name for name in tenant.bucket.names("tap-forensics/") if name.endswith(".ndjson")]
    lines = [json.loads(line) for line in tenant.bucket.get(name).splitlines()]
    lost = next(line["_threatId"] for line in lines if "_campaignId" not in line)
    kept = [json.dumps(line) + "\n" for line in lines if line["_threatId"] != lost]
    tenant.bucket.put(name, "".join(kept))
    state = json.loads(tenant.bucket.get(STATE))
    del state["collected"][lost]
    tenant.bucket.put(STATE, json.dumps(state))


def _repair(tenant: LocalTenant) -> dict[str, str]:
    """With a wrong secret and a cut state object: what `check` says, and `state repair`."""
    tenant.bucket.put(STATE, tenant.bucket.get(STATE)[:100])
    trouble = tenant.screen("check", code=1, TAP_SECRET="wrong")  # noqa: S106 - of the stand-in
    # A run at work might believe in its lease for LEASE_SECONDS: until then it says to wait.
    while "wait" in tenant.call("state repair", "n\n").output.lower():
        pass
    return {"check in trouble": trouble, "state repair": tenant.screen("state repair", "y\n")}


def demo_screen(source: Path) -> str:
    """The telling parts of what `make demo` shows."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = demo(source)
    if code:
        raise AssertionError(said.getvalue())
    sections = re.split(r"^== (?=.+ ==$)", said.getvalue(), flags=re.M)[1:]
    kept = ["== " + _answer_last(text.strip()) for text in sections if not text.startswith(_SAMPLES)]
    return block("$ make demo", "\n\n".join(kept))


def _answer_last(section: str) -> str:
    """The answer may come before or after the last log lines."""
    return "\n".join(sorted(section.splitlines(), key=lambda line: line.startswith("  answer:")))


def block(command: str, output: str) -> str:
    lines = [line.rstrip() for line in output.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    shown = [line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…" for line in lines]
    return "\n".join(["```console", command, *shown, "```", ""])
