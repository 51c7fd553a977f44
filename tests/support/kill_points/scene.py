"""One bucket in a world of its own choice, the runs against it, and the check of what they left."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.routes import FORENSICS, THREAT_SUMMARY
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World
from tests.support.kill_points.gatekeeper import Gatekeeper
from tests.support.kill_points.orders import Call
from tests.support.kill_points.runner import Ending, Run
from tests.support.settings import HANDOVER, PREFIX, STATE

EVIDENCE = re.compile(rf"{PREFIX}/tap_forensics_(\d{{8}}_\d{{6}})(_\d{{4}})?\.ndjson")
# Scenes with threat summaries have them here.
SUMMARIES_PREFIX = "tap-summaries"
SUMMARIES = re.compile(rf"{SUMMARIES_PREFIX}/tap_threat_summaries_\d{{8}}_\d{{6}}(_\d{{4}})?\.ndjson")

MARK = "tap-forensics"
REPORT_BYTES = 1500
CAMPAIGN_REPORT_BYTES = 2500
# So that two or three threats fill a batch.
SMALL_BATCH_BYTES = 4000
ONE_BATCH_BYTES = 4_000_000
END_LAG = timedelta(seconds=60)
# The server's Date header leaves out up to a second, by which a lease seems to be younger.
DATE_SECONDS = 1.0
MOST_RUNS = 10


def small_world(now: datetime) -> World:
    """Nine threats with reports, six of them in two campaigns; one that TAP does not know; one without."""
    world = World.from_threats(
        9,
        now=now,
        campaigns=2,
        threats_per_campaign=3,
        report_bytes=REPORT_BYTES,
        campaign_report_bytes=CAMPAIGN_REPORT_BYTES,
    )
    for answer in ("unknown", "empty"):
        threat = world.add_threat(answer=answer)
        world.add_event("messagesBlocked", [threat.id], created=now - timedelta(minutes=30))
    return world


def reads_state(call: Call) -> bool:
    return call.object_name == STATE and not call.writes and not reads_age(call)


def reads_age(call: Call) -> bool:
    """The lease's age is asked for beside the state: when it was written, and what time it is there."""
    return call.object_name == STATE and "fields=generation" in call.path


def writes_state(call: Call) -> bool:
    return call.object_name == STATE and call.writes


def reads_handover(call: Call) -> bool:
    return call.object_name == HANDOVER and not call.writes


def writes_evidence(call: Call) -> bool:
    return call.writes and bool(EVIDENCE.fullmatch(call.object_name))


def writes_summaries(call: Call) -> bool:
    return call.writes and bool(SUMMARIES.fullmatch(call.object_name))


def asks_for_forensics(call: Call) -> bool:
    return call.path.startswith("/v2/forensics")


def kind(call: Call) -> str:
    """What a call is for, whatever its number: `write evidence`, `read age`, `tap /v2/forensics` …"""
    if call.target == "tap":
        return _tap_kind(call)
    if "versions=true" in call.path:
        return "list versions"
    if reads_age(call):
        return "read age"
    places = {STATE: "state", HANDOVER: "handover"}
    place = "evidence" if EVIDENCE.fullmatch(call.object_name) else places.get(call.object_name, call.path)
    place = "summaries" if SUMMARIES.fullmatch(call.object_name) else place
    return f"{'write' if call.writes else 'read'} {place}"


def _tap_kind(call: Call) -> str:
    path, _, query = call.path.partition("?")
    if path.startswith(THREAT_SUMMARY):
        return "tap summary"
    if path != FORENSICS or "includeCampaignForensics" in query:
        return f"tap {path}"
    return f"tap by {query.partition('=')[0]}"


@dataclass
class Scene:
    """`env` is what each run's environment adds to the addresses and credentials."""

    name: str
    storage: FakeBucket
    tap: TapServer
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._runs: list[Run] = []
        self._client = self.storage.client()
        self._bucket = self._client.create_bucket(self.name)

    @property
    def world(self) -> World:
        return self.tap.world

    @property
    def log(self) -> str:
        """What all runs of this scene said, in order."""
        return self._log_file.read_text()

    @property
    def _log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    def gate(self) -> Gatekeeper:
        return Gatekeeper(self.storage.url, self.tap.url)

    def environment(self, gate: Gatekeeper | None = None) -> dict[str, str]:
        return {
            "GCS_BUCKET": self.name,
            "LOOKBACK_HOURS": "2",
            "STORAGE_EMULATOR_HOST": gate.url if gate else self.storage.url,
            "TAP_API_BASE": gate.url if gate else self.tap.url,
            "TAP_PRINCIPAL": self.tap.principal,
            "TAP_SECRET": self.tap.secret,
        } | self.env

    def start(
        self, gate: Gatekeeper | None = None, *, batch_bytes: int = SMALL_BATCH_BYTES, stalls_at: str = ""
    ) -> Run:
        run = Run(self.environment(gate), self._log_file, batch_bytes, stalls_at)
        self._runs.append(run)
        if gate:
            gate.guard(run.kill)
        return run

    def stop(self) -> None:
        """Leaves no process behind, asleep or not."""
        for run in self._runs:
            run.kill()

    def run_until_done(self) -> list[Ending]:
        """Runs one after the other, each after the lease that lies there, until one has nothing left to do.

        A 404 alone settles no threat: if another run fetched all the others, that one stays open. What was in
        flight when two runs died waits for a day, which passes here at once.
        """
        endings: list[Ending] = []
        while not endings or endings[-1] is Ending.FAILED or not self._is_done():
            assert len(endings) < MOST_RUNS, f"still not done after {endings}\n{self.log}"
            self.wait_for_the_lease_to_run_out()
            self._let_the_day_of_the_quarantined_pass()
            endings.append(self.start().end())
        return endings

    def _is_done(self) -> bool:
        state = self.state()
        open_items = {"lease", "gaps", "summaries"} & state.keys()
        return not open_items and state.get("backlog", {}).keys() <= _unknown(self.world)

    def _let_the_day_of_the_quarantined_pass(self) -> None:
        state = self.state()
        named = [state.get(name, {}) for name in ("backlog", "summaries", "failed_campaigns")]
        items = [*state.get("gaps", []), *(item for each in named for item in each.values())]
        quarantined = [item for item in items if item.get("kills", 0) > 1]
        for item in quarantined:
            item["tried"] = (datetime.fromisoformat(item["tried"]) - timedelta(days=1)).isoformat()
        # Writing over a dead run's state would make its lease young again.
        if quarantined and "lease" not in state:
            self.put(STATE, json.dumps(state))

    def wait_for_the_lease_to_run_out(self) -> None:
        while self.lease_left_seconds() > 0:
            time.sleep(0.05)

    def lease_left_seconds(self) -> float:
        """How long a run that comes now finds the lease held; 0 or less if it is free."""
        lease = self.state().get("lease")
        if not lease:
            return 0
        age = datetime.now(UTC) - self.state_written()
        return float(lease["seconds"] + DATE_SECONDS - age.total_seconds())

    def state_written(self) -> datetime:
        """When the state was committed last, by the bucket's clock."""
        blob = self._bucket.get_blob(STATE)
        assert blob is not None
        assert blob.updated
        written: datetime = blob.updated
        return written

    def state(self) -> dict[str, Any]:
        """The working state, empty where none was written yet."""
        return json.loads(self.objects().get(STATE, b"{}"))  # type: ignore[no-any-return]  # an object, by design

    def objects(self) -> dict[str, bytes]:
        return {blob.name: blob.download_as_bytes() for blob in self._client.list_blobs(self.name)}

    def put(self, name: str, data: str) -> None:
        """Writes over an object, as another program would."""
        self._bucket.blob(name).upload_from_string(data)

    def evidence(self) -> dict[str, bytes]:
        others = (STATE, HANDOVER, *self.summaries())
        return {name: data for name, data in self.objects().items() if name not in others}

    def summaries(self) -> dict[str, bytes]:
        return {name: data for name, data in self.objects().items() if SUMMARIES.fullmatch(name)}

    def check(self, since: datetime) -> list[str]:
        """What is not as it must be after a last good run that began at `since` or later."""
        state = json.loads(self.objects()[STATE])
        left = state.pop("backlog", {}).keys() - _unknown(self.world)
        return [
            *(f"threat {name[:8]} is left on the backlog" for name in left),
            *_faults_of_evidence(self.evidence(), self.world),
            *(_faults_of_summaries(self.summaries(), self.world) if "SUMMARIES_PREFIX" in self.env else ()),
            *(_repeated_campaigns(self.evidence()) if self.env.get("CAMPAIGN_FIRST") == "on" else ()),
            *_faults_of_state(state, json.loads(self.objects()[HANDOVER]), since),
        ]


def _unknown(world: World) -> set[str]:
    return {name for name, threat in world.threats.items() if threat.answer == "unknown"}


def _faults_of_evidence(evidence: dict[str, bytes], world: World) -> list[str]:
    faults = [f"{name} is no evidence object" for name in evidence if not EVIDENCE.fullmatch(name)]
    faults += [f"{name} is empty or cut" for name, data in evidence.items() if not data.endswith(b"\n")]
    lines_by_run = [(_run_id(name), line) for name, data in evidence.items() for line in _lines(data)]
    threats = Counter(line["_threatId"] for _, line in lines_by_run if line["scope"] == "THREAT")
    expected = {name for name, threat in world.threats.items() if threat.answer == "report"}
    faults += [f"threat {name[:8]} was never delivered" for name in expected - threats.keys()]
    faults += [f"threat {name[:8]} came {n} times" for name, n in threats.items() if n > 1]
    campaigns = Counter((run, line["id"]) for run, line in lines_by_run if line["scope"] == "CAMPAIGN")
    missed = set(world.campaigns) - {name for _, name in campaigns}
    faults += [f"campaign {name[:8]} was never delivered" for name in missed]
    faults += [
        f"campaign {name[:8]} came {n} times in run {run}" for (run, name), n in campaigns.items() if n > 1
    ]
    return faults


def _repeated_campaigns(evidence: dict[str, bytes]) -> list[str]:
    """With a call of its own a campaign's report comes once in DEDUP_HOURS, not once a run."""
    lines = [line for data in evidence.values() for line in _lines(data)]
    campaigns = Counter(line["id"] for line in lines if line["scope"] == "CAMPAIGN")
    return [f"campaign {name[:8]} came {n} times" for name, n in campaigns.items() if n > 1]


def _faults_of_summaries(summaries: dict[str, bytes], world: World) -> list[str]:
    faults = [f"{name} is empty or cut" for name, data in summaries.items() if not data.endswith(b"\n")]
    came = Counter(line["_threatId"] for data in summaries.values() for line in _lines(data))
    faults += [
        f"the summary of {name[:8]} was never delivered" for name in world.threats.keys() - came.keys()
    ]
    return faults + [f"the summary of {name[:8]} came {n} times" for name, n in came.items() if n > 1]


def _faults_of_state(state: dict[str, Any], legacy_key: dict[str, Any], since: datetime) -> list[str]:
    done = ("lease", "gaps", "lost", "summaries")
    faults = [f"{key} is left in the state" for key in done if key in state]
    cursor = datetime.fromisoformat(state["last_event_time"])
    if not since - END_LAG - timedelta(seconds=1) <= cursor <= utc_now() - END_LAG:
        faults.append(f"the cursor is at {cursor}")
    if (legacy_key["written_by"], datetime.fromisoformat(legacy_key["last_event_time"])) != (MARK, cursor):
        faults.append(f"the published function would go on from {legacy_key}, not from {cursor}")
    return faults


def _run_id(name: str) -> str:
    found = EVIDENCE.fullmatch(name)
    return found[1] if found else name


def _lines(data: bytes) -> list[dict[str, Any]]:
    """One report each, in either RECORD_SHAPE."""
    lines = [json.loads(line) for line in data.split(b"\n") if line]
    return [line | report for line in lines for report in line.get("reports", [{}])]
