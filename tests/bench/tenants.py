"""`python -m tests.bench.tenants`: how long many tenants' runs take on N containers, published at once."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import utc_now
from tests.support.fleet import Deliveries, Fleet, mount
from tests.support.tenants_api import Tenant, TenantsApi, make_tenants

_CONTAINERS = (1, 4, 16)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m tests.bench.tenants", description=__doc__)
    options.add_argument("--tenants", type=int, default=200)
    options.add_argument("--containers", type=int, nargs="+", default=list(_CONTAINERS), metavar="N")
    return options


def main() -> None:
    options = parser().parse_args()
    tenants = make_tenants([f"customer-{number}" for number in range(options.tenants)], utc_now())
    print(
        f"# {len(tenants)} tenants, a run each: Python {platform.python_version()}, {os.cpu_count()} CPUs\n"
    )
    print("| containers | wall s | runs a second | times as fast |\n|---|---|---|---|")
    first = 0.0
    for containers in options.containers:
        seconds = measure(tenants, containers).seconds
        first = first or seconds
        rate = len(tenants) / seconds
        print(f"| {containers} | {seconds:.1f} | {rate:.1f} | {first / seconds:.1f} |", flush=True)


def measure(tenants: dict[str, Tenant], containers: int) -> Deliveries:
    """One publication against an empty bucket, with the containers up. Raises RuntimeError if one failed."""
    with tempfile.TemporaryDirectory() as folder, FakeBucket("bench") as bucket, TenantsApi(tenants) as api:
        mount(Path(folder), tenants.values())
        env = {
            "K_SERVICE": "tap-forensics-collector",
            "GCS_BUCKET": bucket.name,
            "STORAGE_EMULATOR_HOST": bucket.url,
            "TAP_API_BASE": api.url,
            "TENANTS_DIR": folder,
            # The worlds' events must still be reached by the last measurement.
            "LOOKBACK_HOURS": "2",
        }
        with Fleet(env, containers) as fleet:
            deliveries = fleet.publish(tenants)
    if deliveries.ended() != {200: len(tenants)}:
        raise RuntimeError(f"not every run worked: {deliveries.ended()}")
    return deliveries


if __name__ == "__main__":
    main()
