"""Asks TAP whether it has a report for a threat that has no line, and of which the state says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from tap_forensics.clock import Deadline
from tap_forensics.forensics.workers import (
    Fetched,
    Rejected,
    Skipped,
    WorkerPool,
    fetch_forensics,
)
from tap_forensics.tap.client import TapClient

_WORKERS = 4


def ask_for_reports(
    client: TapClient,
    deadline: Deadline,
    threat_ids: list[str],
    before_sleep: Callable[[Exception, float], None],
) -> Iterator[tuple[str, bool]]:
    """Yields for each threat that TAP answers whether it has a report.

    A 404 or 400 is TAP's own only if it answers another threat too: give one that has a report first.
    """
    pool = WorkerPool(client, deadline, before_sleep)
    rejected: list[str] = []
    with closing(fetch_forensics(pool, threat_ids, _WORKERS)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Fetched):
                outcome.release()
                yield outcome.threat_id, True
            elif isinstance(outcome, Skipped):
                yield outcome.threat_id, False
            elif isinstance(outcome, Rejected):
                rejected.append(outcome.threat_id)
    if pool.proven:
        yield from ((threat_id, False) for threat_id in rejected)
