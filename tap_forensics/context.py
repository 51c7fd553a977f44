"""What every step of one run shares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from tap_forensics.clock import Clock
from tap_forensics.config.settings import Settings
from tap_forensics.stats import RunStats
from tap_forensics.storage.bucket import Bucket
from tap_forensics.storage.numbered_objects import BATCH_BYTES
from tap_forensics.storage.state_store import StateStore


@dataclass(frozen=True)
class RunContext:
    """`before_sleep` is told the error and the seconds of each wait between two attempts.
    Lines of `batch_bytes` fill an object.
    """

    settings: Settings
    log: logging.Logger
    stats: RunStats
    store: StateStore
    bucket: Bucket
    before_sleep: Callable[[Exception, float], None]
    batch_bytes: int = BATCH_BYTES

    @property
    def clock(self) -> Clock:
        """Set right by the bucket's, from `held.acquire` on."""
        return self.store.clock
