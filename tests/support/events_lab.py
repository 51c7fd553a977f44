"""What event lines lie in the bucket, and what the world says must lie there."""

from __future__ import annotations

import json
from typing import Any

from tests.support.lab import Lab

EVENTS = "tap-siem"
SEEN = "state/tap-forensics/state.json.seen"


def event_objects(lab: Lab) -> dict[str, bytes]:
    return lab.bucket.objects(f"{EVENTS}/")


def event_lines(lab: Lab) -> list[dict[str, Any]]:
    """Each line's event, whatever its shape."""
    lines = [json.loads(line) for data in event_objects(lab).values() for line in data.splitlines()]
    return [next(iter(line.values()))[0] if "_eventType" not in line else line for line in lines]
