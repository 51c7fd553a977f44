"""The location of the working state: outside the folders that the feeds read."""

from __future__ import annotations

from dataclasses import dataclass

from tap_forensics.config.settings import Settings

# One more than there are feeds, so one is always outside all of them.
_STATE_FOLDERS = ("state", "working-state", "collector-state", "tap-forensics-state")


@dataclass(frozen=True)
class StateLocation:
    """`legacy_key`: the published function's state object (the hand-over object), if `name` is another one.

    `previous_key`: the state object before EVENTS_PREFIX or SUMMARIES_PREFIX contained it; it is read once,
    never written.
    """

    name: str
    legacy_key: str | None
    previous_key: str | None = None


def state_location(settings: Settings) -> StateLocation:
    """Outside the feeds' prefixes: inside, SecOps would ingest it at every commit and could delete it."""
    key = settings.bucket.state_key
    feeds = [f"{prefix}/" for prefix in settings.feed_folders() if prefix]
    if not key.startswith(tuple(feeds)):
        return StateLocation(key, None)
    folders = (f"{folder}/{key}" for folder in _STATE_FOLDERS)
    outside = next(name for name in folders if not name.startswith(tuple(feeds)))
    if settings.bucket.prefix and key.startswith(f"{settings.bucket.prefix}/"):
        return StateLocation(outside, key)
    return StateLocation(outside, None, previous_key=key)
