"""What all steps of one run share."""

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
    """`before_sleep` is called before each wait between two attempts, with the error and the seconds.
    `batch_bytes`: an object is written when its lines have this size.
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
        """The local clock, corrected by the bucket's once the lease is acquired."""
        return self.store.clock
