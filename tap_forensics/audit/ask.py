"""Asks TAP whether it has a report for a threat that has no line, and of which the state says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from tap_forensics.clock import Deadline
from tap_forensics.forensics.responses import parse_reports
from tap_forensics.storage.state import OpenItem
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import FORENSICS
from tap_forensics.workers import Fetched, Rejected, Request, Skipped, WorkerPool, fetch_all

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
    pool = WorkerPool(
        client,
        FORENSICS,
        lambda request: client.forensics(request.threat_id),
        parse_reports,
        deadline,
        before_sleep,
    )
    requests = [Request(threat_id, OpenItem()) for threat_id in threat_ids]
    rejected: list[str] = []
    with closing(fetch_all(pool, requests, _WORKERS)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Fetched):
                outcome.release()
                yield outcome.request.threat_id, True
            elif isinstance(outcome, Skipped):
                yield outcome.request.threat_id, False
            elif isinstance(outcome, Rejected):
                rejected.append(outcome.request.threat_id)
    if pool.proven:
        yield from ((threat_id, False) for threat_id in rejected)
