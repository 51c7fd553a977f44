"""What event lines lie in the bucket, and what the world says must lie there."""

from __future__ import annotations

import json
from typing import Any

from tests.support.lab import Lab

EVENTS = "tap-siem"
SEEN = "state/tap-forensics/state.json.seen"


def event_objects(the: Lab) -> dict[str, bytes]:
    return the.bucket.objects(f"{EVENTS}/")


def event_lines(the: Lab) -> list[dict[str, Any]]:
    """Each line's event, whatever its shape."""
    lines = [json.loads(line) for data in event_objects(the).values() for line in data.splitlines()]
    return [next(iter(line.values()))[0] if "_eventType" not in line else line for line in lines]
