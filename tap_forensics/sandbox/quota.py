"""Rolling quotas like those of TAP: each call uses capacity for 24 hours."""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime, timedelta

PERIOD = timedelta(hours=24)


class RollingQuota:
    """At most `limit` calls in any 24 hours; None means no limit. Thread-safe."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._calls: deque[datetime] = deque()
        self._lock = threading.Lock()

    def admit(self, now: datetime, *, count_refused: bool) -> bool:
        """Whether a call at `now` is allowed. It is not documented if refused calls count too."""
        with self._lock:
            while self._calls and self._calls[0] <= now - PERIOD:
                self._calls.popleft()
            admitted = self.limit is None or len(self._calls) < self.limit
            if admitted or count_refused:
                self._calls.append(now)
        return admitted

    def reset(self) -> None:
        with self._lock:
            self._calls.clear()
