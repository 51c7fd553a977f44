"""Settings and environments of the runs of tests, and the names of what these runs write."""

from __future__ import annotations

from tap_forensics.config.settings import Settings, load_settings
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import TapServer

PRINCIPAL, SECRET = "demo-principal", "demo-secret"
REQUIRED = {"GCS_BUCKET": "demo-bucket", "TAP_PRINCIPAL": PRINCIPAL, "TAP_SECRET": SECRET}

PREFIX = "tap-forensics"
# The published function's state, and ours.
HANDOVER = f"{PREFIX}/state.json"
STATE = f"state/{HANDOVER}"


def make_settings(**variables: str) -> Settings:
    """Settings from the required variables and these."""
    return load_settings(REQUIRED | variables)


def environment(tap: TapServer, bucket: FakeBucket, **more: str) -> dict[str, str]:
    """What a run needs to find both servers."""
    return {
        "GCS_BUCKET": bucket.name,
        "STORAGE_EMULATOR_HOST": bucket.url,
        "TAP_API_BASE": tap.url,
        "TAP_PRINCIPAL": tap.principal,
        "TAP_SECRET": tap.secret,
    } | more
