"""`python -m tests.bench.events`: 50,000 events in one answer, beside a plain loop; and the memory of a day.

Each contender is a fresh process that reads the same answer from a file. Ours makes fingerprints, lines and
objects as in a run, to a bucket that takes everything at once; the loop writes nothing.
"""

from __future__ import annotations

import json
import logging
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from pathlib import Path
from statistics import median
from typing import Any, cast

import msgspec

from tap_forensics.clock import Clock
from tap_forensics.config.settings import load_settings
from tap_forensics.context import RunContext
from tap_forensics.discovery.event_writer import EventWriter
from tap_forensics.discovery.siem import _lists_of, _reading
from tap_forensics.process import tune_allocator
from tap_forensics.sandbox import messages
from tap_forensics.sandbox.world import World
from tap_forensics.stats import RunStats
from tap_forensics.storage import event_dedup as memory
from tap_forensics.storage.event_dedup import EventIndex
from tap_forensics.storage.state import VERSION, Lease, State
from tap_forensics.tap.windows import Window

EVENTS = 50_000
REPEAT = 3
AN_HOUR = 200_000
NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
WINDOW = Window(NOW - timedelta(hours=1), NOW)
_MIB = 1024 * 1024


def answer(events: int) -> bytes:
    """Of messages in the live shape with two parts, one threat and several recipients: a good 1 KB each."""
    world = World(1, start=WINDOW.start, end=WINDOW.end, messages_per_hour=0, clicks_per_hour=0, campaigns=3)
    rng = random.Random(1)
    made = []
    for _ in range(events):
        threat = world.add_threat(campaign=rng.choice([None, *world.campaigns]))
        info = messages.threats_info(rng, [threat], NOW, junk=0)
        body = messages.copy_for(rng, messages.mail(rng, NOW), messages.address(rng), info)
        body["messageParts"] = messages.message_parts(rng)[:2] if rng.random() < 0.1 else None
        made.append(body)
    return json.dumps({"messagesDelivered": made}, separators=(",", ":"), ensure_ascii=False).encode()


def plain_loop(body: bytes) -> dict[str, Any]:
    lines = written = 0
    for kind, events in json.loads(body).items():
        for event in events:
            event["_eventType"] = kind
            written += len(json.dumps({kind: [event]}))
            lines += 1
    return {"lines": lines, "bytes": written}


def loop_that_knows_again(body: bytes) -> dict[str, Any]:
    """The loop, keeping the promise that ours keeps: no event twice, whatever its order or verdict."""
    seen: dict[bytes, str] = {}
    lines = written = 0
    for kind, events in json.loads(body).items():
        for event in events:
            facts = {k: sorted(map(json.dumps, v)) if isinstance(v, list) else v for k, v in event.items()}
            entries = [dict(entry) for entry in event["threatsInfoMap"] or ()]
            changing = [
                [entry.pop(key, None) for key in ("threatStatus", "threatTime", "campaignID")]
                for entry in entries
            ]
            facts["threatsInfoMap"] = sorted(json.dumps(entry, sort_keys=True) for entry in entries)
            digest = sha1(json.dumps(facts, sort_keys=True).encode(), usedforsecurity=False).digest()[:8]
            version = json.dumps([[status, campaign] for status, _, campaign in changing])
            if seen.get(digest) == version:
                continue
            seen[digest] = version
            event["_eventType"] = kind
            written += len(json.dumps({kind: [event]}))
            lines += 1
    return {"lines": lines, "bytes": written}


class Void:
    """A bucket that takes every object at once and keeps none."""

    name = "void"
    objects = 0

    def create(self, name: str, data: bytes, content_type: str) -> int:  # noqa: ARG002
        self.objects += 1
        return 1


class Held:
    """A lease that nobody disputes."""

    def __init__(self) -> None:
        self.lease = Lease("20260304_100000", "bench", NOW)
        self.in_doubt = False
        self.clock = Clock()

    @contextmanager
    def changing(self) -> Any:
        yield State(VERSION)

    def renew_if_run_out(self) -> None:
        return

    commit_if_due = commit = renew_if_run_out


def ours(body: bytes, *, threats: bool = False) -> dict[str, Any]:
    required = {"GCS_BUCKET": "bench-bucket", "TAP_PRINCIPAL": "p", "TAP_SECRET": "s"}
    settings = load_settings({**required, "EVENTS_PREFIX": "tap-siem"})
    stats = RunStats()
    log = logging.Logger("bench")
    store, bucket = cast("Any", Held()), cast("Any", Void())
    run = RunContext(settings, log, stats, store, bucket, lambda *_: None)
    delivery = EventWriter(run, EventIndex(), 0)
    delivery.add(_reading(_lists_of(body), NOW, threats, events=True), WINDOW)
    return {"lines": stats.event_lines, "bytes": stats.event_bytes}


def ours_with_threats(body: bytes) -> dict[str, Any]:
    return ours(body, threats=True)


CONTENDERS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "plain_loop": plain_loop,
    "loop_that_knows_again": loop_that_knows_again,
    "ours": ours,
    "ours_with_threats": ours_with_threats,
}


def _measured(name: str, path: str) -> None:
    tune_allocator()
    body = Path(path).read_bytes()
    before, began = _peak(), time.process_time()
    facts = CONTENDERS[name](body)
    facts |= {"cpu": time.process_time() - began, "growth": _peak() - before, "body": len(body)}
    print(json.dumps(facts))


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _run(name: str, path: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.events", name, path]
    completed = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this module
    return cast("dict[str, Any]", json.loads(completed.stdout.splitlines()[-1]))


def table(events: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(answer(events))
        file.flush()
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for _ in range(REPEAT):
            for name in CONTENDERS:
                runs[name].append(_run(name, file.name))
    size = runs["ours"][0]["body"]
    print(f"\n## {events:,} events in one answer of {size / _MIB:.1f} MiB (median of {REPEAT})\n")
    print("| contender | lines/s of CPU | CPU ms/MB | memory growth MiB |\n|---|---:|---:|---:|")
    cpu = {name: median(one["cpu"] for one in each) for name, each in runs.items()}
    for name, each in runs.items():
        growth = median(one["growth"] for one in each) / _MIB
        per_mb = cpu[name] / (size / 1e6) * 1000
        print(f"| {name} | {each[0]['lines'] / cpu[name]:,.0f} | {per_mb:.2f} | {growth:.0f} |")
    for loop in ("plain_loop", "loop_that_knows_again"):
        print(f"\n{loop} ÷ ours_with_threats, CPU: {cpu[loop] / cpu['ours_with_threats']:.2f}")


def memory_table() -> None:
    """What overlaps and the hour before keep at 200,000 events an hour, and what loading and saving cost."""
    rng = random.Random(1)
    print(f"\n## The memory of delivered events at {AN_HOUR:,} an hour\n")
    print("| hours kept | entries | object MiB | save ms | load ms |\n|---:|---:|---:|---:|---:|")
    for hours in (2, 3):
        count = hours * AN_HOUR
        value = 1 << 32 | memory.last_minute(WINDOW)
        kept = EventIndex("20260304_100000", 1, {rng.getrandbits(64): value for _ in range(count)})
        began = time.process_time()
        data = memory.encode(kept)
        saved = time.process_time()
        memory.decode(data, "it")
        loaded = time.process_time()
        costs = f"{(saved - began) * 1000:.0f} | {(loaded - saved) * 1000:.0f}"
        print(f"| {hours} | {count:,} | {len(data) / _MIB:.1f} | {costs} |")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _measured(sys.argv[1], sys.argv[2])
    else:
        print(f"# Events: Python {sys.version.split()[0]}, msgspec {msgspec.__version__}")
        for count in (EVENTS // 4, EVENTS):
            table(count)
        memory_table()
