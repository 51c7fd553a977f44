"""The two shows: `demo` with a generated tenant, `run` against the real API with a local bucket."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from tap_forensics.sandbox import console as display
from tap_forensics.sandbox.cloudevents import FunctionServer, curl_line, post_event
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.kept import show_next_steps
from tap_forensics.sandbox.processes import is_free
from tap_forensics.sandbox.tap_api import TapServer, utc_now
from tap_forensics.sandbox.world import World

PREFIX = "tap-forensics"
EVENTS_PREFIX = "tap-siem"
SUMMARIES_PREFIX = "tap-summaries"
WORKING_STATE = f"state/{PREFIX}/state.json"
LOOKBACK_HOURS = 3

Lines = dict[str, list[bytes]]


@dataclass(frozen=True)
class Tenant:
    """A generated tenant, and what serves it on this machine."""

    world: World
    api: TapServer
    bucket: FakeBucket
    function: FunctionServer


@contextmanager
def generated_tenant(source: Path, seed: int) -> Iterator[Tenant]:
    """Everything that it starts ends with it."""
    now = utc_now()
    # Well inside what the function asks for, so that the edges of its windows do not decide what must come.
    start, end = now - timedelta(hours=LOOKBACK_HOURS, minutes=-10), now - timedelta(minutes=5)
    world = World(seed, start=start, end=end, messages_per_hour=16, clicks_per_hour=5, campaigns=3)
    with (
        TapServer(world) as api,
        FakeBucket() as bucket,
        FunctionServer(_environment(api, bucket), source, echo=display.log_line) as function,
    ):
        yield Tenant(world, api, bucket, function)


def demo(source: Path, seed: int = 1, *, keep: bool = False) -> int:
    """Posts two events to the function and checks what it wrote. Returns 0, or 1 with a line for each fault.

    With `keep` the tenant stays up after that, until KeyboardInterrupt or until the function ends.
    """
    with generated_tenant(source, seed) as tenant:
        _show_world(tenant)
        faults, summary = _two_events(tenant)
        if keep and not faults:
            display.heading("In short")
            print(summary)
            return _stay_up(tenant)
    display.heading("In short")
    if faults:
        print("\n".join(f"FAILED: {fault}" for fault in faults))
        return 1
    print(f"{summary} Everything started here has ended.")
    return 0


def _two_events(tenant: Tenant) -> tuple[list[str], str]:
    """The faults found, and what came in one paragraph."""
    bucket, function = tenant.bucket, tenant.function
    faults = _run(function, "First event: {} posted as Eventarc posts it")
    before, events = lines_by_threat(bucket.objects(PREFIX)), _lines(bucket, EVENTS_PREFIX)
    summaries = _lines(bucket, SUMMARIES_PREFIX)
    _show_results(bucket, before, events)
    faults += _run(function, "Second event, right after the first")
    after = lines_by_threat(bucket.objects(PREFIX))
    faults += feed_faults("event", events, _lines(bucket, EVENTS_PREFIX))
    faults += feed_faults("summary", summaries, _lines(bucket, SUMMARIES_PREFIX))
    expected = _expected(tenant.world)
    faults += verdict(expected, before, after)
    return faults, (
        f"All {len(expected)} threats with evidence have their lines: {_count(before)} after the first event "
        f"and {_count(after)} after the second, no line twice. {len(events)} events and the summaries of "
        f"{len(summaries)} threats have one line each."
    )


def _stay_up(tenant: Tenant) -> int:
    show_next_steps(_environment(tenant.api, tenant.bucket), curl_line(tenant.function.url))
    tenant.function.wait()
    print("The function has ended by itself.")
    return 1


def until_interrupted(show: Callable[[], int]) -> int:
    """The exit code of `show`; 130 with one line if the user ends it."""
    try:
        return show()
    except KeyboardInterrupt:
        # If the terminal is closed, nobody can read this.
        with suppress(OSError):
            print("\nInterrupted. Everything started here has ended.", flush=True)
        return 130


def run(source: Path, port: int, environment: Mapping[str, str]) -> int:
    """The function against the real API, with the user's environment and a local bucket, until Ctrl-C."""
    if not _has_credentials(environment):
        print(
            "Set TAP_PRINCIPAL and TAP_SECRET to the TAP service credentials, or TAP_PRINCIPAL_FILE and "
            "TAP_SECRET_FILE to the files that hold them."
        )
        return 2
    if not is_free(port):
        print(f"Port {port} is in use; choose another one with --port.")
        return 2
    with FakeBucket(environment.get("GCS_BUCKET") or "demo-bucket") as bucket:
        env = dict(environment) | {"GCS_BUCKET": bucket.name, "STORAGE_EMULATOR_HOST": bucket.url}
        # A proxy for the API must not be used for this machine.
        for name in ("NO_PROXY", "no_proxy"):
            env[name] = ",".join(filter(None, [environment.get(name), "127.0.0.1"]))
        with FunctionServer(env, source, port, echo=display.log_line) as function:
            _run(function, "First event")
            display.object_list(bucket.objects())
            display.heading("Running until Ctrl-C")
            print(f"Another event:\n  {curl_line(function.url)}")
            print(f"The objects:\n  curl {bucket.url}/storage/v1/b/{bucket.name}/o", flush=True)
            function.wait()
    print("The function has ended by itself.")
    return 1


def lines_by_threat(objects: Mapping[str, bytes]) -> Lines:
    """The evidence lines by their `_threatId`. An NDJSON line ends at \\n and at no other separator."""
    found: Lines = {}
    for name, data in objects.items():
        if name.endswith(".ndjson"):
            for line in data.removesuffix(b"\n").split(b"\n"):
                found.setdefault(json.loads(line)["_threatId"], []).append(line)
    return found


def verdict(expected: set[str], before: Lines, after: Lines) -> list[str]:
    """What is wrong, one sentence each: threats without a line, lines that came twice."""
    faults = []
    if missing := expected - before.keys():
        faults.append(f"{len(missing)} of {len(expected)} threats have no line, such as {min(missing)}")
    twice = [line for line, times in Counter(chain.from_iterable(after.values())).items() if times > 1]
    if twice:
        faults.append(f"{len(twice)} lines came twice")
    grown = [name for name in before if len(after.get(name, [])) != len(before[name])]
    if grown:
        faults.append(f"the second event changed the lines of {len(grown)} threats, such as {grown[0]}")
    return faults


def feed_faults(kind: str, before: list[bytes], after: list[bytes]) -> list[str]:
    """What is wrong with the lines of one feed: none at all, some twice, or more after the second event."""
    faults = [] if before else [f"there is no {kind} line"]
    if len(set(after)) < len(after):
        faults.append(f"{len(after) - len(set(after))} {kind} lines came twice")
    if len(after) != len(before):
        faults.append(f"the second event brought {len(after) - len(before)} more {kind} lines")
    return faults


def _lines(bucket: FakeBucket, folder: str) -> list[bytes]:
    return [line for data in bucket.objects(f"{folder}/").values() for line in data.split(b"\n") if line]


def _environment(api: TapServer, bucket: FakeBucket) -> dict[str, str]:
    return {
        "EVENTS_PREFIX": EVENTS_PREFIX,
        "GCS_BUCKET": bucket.name,
        "LOOKBACK_HOURS": str(LOOKBACK_HOURS),
        "STORAGE_EMULATOR_HOST": bucket.url,
        "SUMMARIES_PREFIX": SUMMARIES_PREFIX,
        "TAP_API_BASE": api.url,
        "TAP_PRINCIPAL": api.principal,
        "TAP_SECRET": api.secret,
    }


def _has_credentials(environment: Mapping[str, str]) -> bool:
    return all(
        environment.get(name) or environment.get(f"{name}_FILE") for name in ("TAP_PRINCIPAL", "TAP_SECRET")
    )


def _show_world(tenant: Tenant) -> None:
    world, api, bucket = tenant.world, tenant.api, tenant.bucket
    display.heading("The generated tenant")
    print(f"  TAP stand-in  {api.url}  {len(world.events)} events, {len(world.threats)} threats")
    print(f"  bucket        {bucket.url}  gs://{bucket.name}")
    print(f"  function      {tenant.function.url}")


def _run(function: FunctionServer, title: str) -> list[str]:
    """Posts an event and prints the answer. Returns a fault if it is not 200."""
    display.heading(title)
    started = time.monotonic()
    status, body = post_event(function.url)
    print(f"  answer: {status} after {time.monotonic() - started:.1f} s")
    return [] if status == 200 else [f"the function answered {status}: {body[:200]}"]


def _show_results(bucket: FakeBucket, lines: Lines, events: list[bytes]) -> None:
    objects = bucket.objects()
    display.heading("Objects in the bucket")
    display.object_list(objects)
    if lines:
        display.heading("One line of evidence, shortened")
        print(display.pretty(_telling(lines), most=2))
    if events:
        display.heading("One event's line, shortened")
        print(display.pretty(json.loads(events[0]), most=2))
    for name in (WORKING_STATE, f"{PREFIX}/state.json"):
        if name in objects:
            display.heading(f"{name}, shortened")
            print(display.pretty(json.loads(objects[name]), most=3))


def _telling(lines: Lines) -> Any:
    """A line with evidence in it, if there is one."""
    records = [json.loads(line) for group in lines.values() for line in group]
    return next((record for record in records if record.get("forensics")), records[0])


def _expected(world: World) -> set[str]:
    """Threats that the first event must collect: the API shows them by then and has a report."""
    shown = world.threat_ids_between(world.start, world.end, now=world.end + timedelta(minutes=5))
    return {name for name in shown if world.threats[name].answer == "report"}


def _count(lines: Lines) -> int:
    return sum(map(len, lines.values()))
