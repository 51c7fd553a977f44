"""Where a contender runs: the stand-in and the bucket are processes of their own, and so is the contender."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.processes import end_group

from .cost import Cost
from .workloads import Workload

ROOT = Path(__file__).resolve().parents[2]
CONTENDERS = ("plain_loop", "ours", "floor")
CONCURRENCY = 8
_PATIENCE_SECONDS = 900


@dataclass(frozen=True)
class Measurement:
    """One contender's run; `targets` are the requests it made, in order of arrival."""

    cost: Cost
    targets: list[str]
    bytes_written: int

    def calls_to(self, path: str) -> int:
        return sum(target.startswith(path) for target in self.targets)


class StandIn:
    """The stand-in for the API, serving one workload."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = urllib3.PoolManager()
        self._seen = 0

    def new_targets(self) -> list[str]:
        """The requests since the last look into its journal."""
        journal: list[dict[str, Any]] = self._http.request("GET", f"{self.url}/_sandbox/calls").json()
        new, self._seen = journal[self._seen :], len(journal)
        return [f"{call['path']}?{urlencode(call['query'])}" for call in new]


@contextmanager
def stand_in(workload: Workload) -> Iterator[StandIn]:
    """Up once its answers are made and packed."""
    options = {
        "threats": workload.threats,
        "campaigns": workload.campaigns,
        "threats-per-campaign": workload.threats_per_campaign,
        "report-bytes": workload.report_bytes,
        "campaign-report-bytes": workload.campaign_report_bytes,
        "latency-seconds": workload.latency_seconds,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    process = subprocess.Popen(  # noqa: S603 (our own module, with arguments of ours)
        [sys.executable, "-m", "tap_forensics.sandbox.tap_api", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout
        url = process.stdout.readline().decode().strip()
        if not url:
            raise RuntimeError("the stand-in did not start")
        yield StandIn(url)
    finally:
        end_group(process)


def measure(contender: str, workload: Workload, api: StandIn, targets: list[str]) -> Measurement:
    """Runs one contender in a fresh process against an empty bucket; `targets` are for the floor to replay.

    Raises RuntimeError if it failed, or did not ask for each threat's forensics exactly once.
    """
    with FakeBucket("bench-bucket") as bucket:
        output = _run(contender, _environment(workload, api, bucket), "\n".join(targets))
        blobs = bucket.client().list_blobs(bucket.name, prefix="tap-forensics/tap_forensics_")
        written = sum(blob.size for blob in blobs)
    measured = Measurement(Cost(**json.loads(output.splitlines()[-1])), api.new_targets(), written)
    asked = [target for target in measured.targets if target.startswith("/v2/forensics")]
    if not len(asked) == len(set(asked)) == workload.threats:
        raise RuntimeError(f"{contender} made {len(asked)} forensics calls for {workload.threats} threats")
    return measured


def _run(contender: str, environment: dict[str, str], given: str) -> str:
    ended = subprocess.run(  # noqa: S603 (our own module)
        [sys.executable, "-m", f"tests.bench.{contender}"],
        cwd=ROOT,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"{contender} failed:\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}")
    return ended.stdout


def _environment(workload: Workload, api: StandIn, bucket: FakeBucket) -> dict[str, str]:
    """All that a contender sees: nothing of the caller's environment can change what is measured."""
    return {
        "GCS_BUCKET": bucket.name,
        "TAP_PRINCIPAL": "demo-principal",
        "TAP_SECRET": "demo-secret",
        "TAP_API_BASE": api.url,
        "STORAGE_EMULATOR_HOST": bucket.url,
        "FETCH_CONCURRENCY": str(CONCURRENCY),
        "MAX_THREATS": str(workload.threats * 2 or 1),
        # The world's events lie in the hour before it was made; later repetitions must still reach them.
        "LOOKBACK_HOURS": "2",
    }


def cold_start_seconds(statement: str) -> float:
    """From starting a fresh interpreter until it has executed the statement."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", f"{statement}; print('ready', flush=True)"]
    with subprocess.Popen(  # noqa: S603 (a statement of ours)
        command, cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        ready = process.stdout.readline()
        seconds = time.perf_counter() - begun
    if ready.strip() != b"ready":
        raise RuntimeError(f"`{statement}` failed")
    return seconds
