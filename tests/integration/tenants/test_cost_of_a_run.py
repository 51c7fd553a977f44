"""What a run asks of the bucket and of TAP, counted, is what deploy/README.md reckons with."""

from __future__ import annotations

import re

import pytest

from tap_forensics.sandbox.cloudevents import FunctionServer, post_event
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.support.fleet import MAIN
from tests.support.kill_points.gatekeeper import Gatekeeper
from tests.support.kill_points.orders import Call

README = (MAIN.parent / "deploy" / "README.md").read_text(encoding="utf-8")


def reckoned(row: str) -> list[int]:
    """Writes, reads, SIEM calls and forensics calls."""
    found = re.search(rf"^\| {row} \|(( \d+ \|){{4}})", README, re.M)
    assert found, row
    return [int(number) for number in re.findall(r"\d+", found[1])]


def counted(calls: list[Call]) -> list[int]:
    asked = [call.path.partition("?")[0] for call in calls if call.target == "tap"]
    writes = sum(call.writes for call in calls)
    # Only a first run looks whether there ever was a state.
    first_run_only = sum("versions=true" in call.path for call in calls)
    reads = sum(call.target == "bucket" for call in calls) - writes - first_run_only
    return [writes, reads, asked.count("/v2/siem/all"), asked.count("/v2/forensics")]


@pytest.mark.parametrize(
    ("variables", "brings", "idle"),
    [
        ({}, "brings 12 threats", "finds nothing new"),
        (
            {"EVENTS_PREFIX": "tap-siem"},
            "brings 12 threats and their events",
            "finds nothing new, with `EVENTS_PREFIX`",
        ),
    ],
)
def test_a_run_costs_what_the_readme_reckons_with(variables: dict[str, str], brings: str, idle: str) -> None:
    world = World.from_threats(12, now=utc_now(), report_bytes=4_000)
    with (
        TapServer(world) as tap,
        FakeBucket("counted") as bucket,
        Gatekeeper(bucket.url, tap.url) as gate,
    ):
        env = {
            "K_SERVICE": "tap-forensics-collector",
            "GCS_BUCKET": bucket.name,
            "STATE_KEY": "state/tap-forensics/state.json",
            "STORAGE_EMULATOR_HOST": gate.url,
            "TAP_API_BASE": gate.url,
            "TAP_PRINCIPAL": tap.principal,
            "TAP_SECRET": tap.secret,
            # As much as a run of an hourly schedule reads with its overlap.
            "LOOKBACK_HOURS": "2",
            "OVERLAP_MINUTES": "119",
        }
        with FunctionServer(env | variables, MAIN) as server:
            for row in (brings, idle):
                before = len(gate.journal)
                assert post_event(server.url)[0] == 200
                assert counted(gate.journal[before:]) == reckoned(row), row
