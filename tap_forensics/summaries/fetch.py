"""Open summaries → lines → objects → state, until the summaries or the time run out."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

from tap_forensics.clock import Deadline
from tap_forensics.context import RunContext
from tap_forensics.errors import RateLimited, Retryable
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.open_items import mark_summarized
from tap_forensics.summaries.summary_writer import FetchedSummary, SummaryWriter, parse_summary
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import SUMMARIES, PoolStatus
from tap_forensics.workers import (
    Failed,
    Outcome,
    Rejected,
    Request,
    Skipped,
    WorkerPool,
    announced,
    fetch_all,
)


@dataclass(frozen=True)
class _Work:
    """What the steps share. `rejected`: 404 and 400 responses that may not be from TAP itself."""

    run: RunContext
    pool: WorkerPool
    writer: SummaryWriter
    rejected: list[Rejected] = field(default_factory=list)


def fetch_summaries(run: RunContext, client: TapClient, deadline: Deadline) -> Retryable | None:
    """Fetches the open summaries that are due. Returns why it ended early, if it did.

    Raises `RunFailed`: `AuthenticationFailed`, or an error of the bucket. What was fetched before is written.
    """
    requests = _select(run, client)
    if not requests:
        return None
    pool = WorkerPool(
        client,
        SUMMARIES,
        lambda request: client.summary(request.threat_id),
        parse_summary,
        deadline,
        run.before_sleep,
    )
    client.expect_429(SUMMARIES)
    # No wait and no call goes on after it: the rest of the time is for forensics.
    client.limiters[SUMMARIES].deadline = deadline
    work = _Work(run, pool, SummaryWriter(run))
    # Written before the next one is requested, so that only one at a time can kill the run.
    for request in [request for request in requests if request.item.kills]:
        if not pool.stop_reason:
            _fetch(work, [request], workers=1)
    others = [request for request in requests if not request.item.kills]
    if not pool.stop_reason:
        _fetch(work, others, run.settings.forensics.fetch_concurrency)
    for outcome in work.rejected:
        _requeue(run, outcome)
    return _stop_reason(run, pool)


def _select(run: RunContext, client: TapClient) -> list[Request]:
    now = run.clock.now()
    with run.store.transaction() as state:
        due = [(threat_id, item) for threat_id, item in state.summaries.items() if item.due(now)]
    due.sort(key=lambda entry: entry[1].sort_key())
    if due and client.quota.status(SUMMARIES, now) is PoolStatus.BLOCKED:
        run.log.warning("TAP answered 429 to threat summaries: no calls in this run, %d stay open", len(due))
        return []
    return [Request(threat_id, item) for threat_id, item in due]


def _fetch(work: _Work, requests: list[Request], workers: int) -> None:
    in_groups = announced(requests, workers, lambda group: _announce(work.run, group))
    try:
        with closing(fetch_all(work.pool, in_groups, workers)) as outcomes:
            for outcome in outcomes:
                if outcome is not None:
                    _process(work, outcome)
    finally:
        work.writer.flush()
    work.run.store.nothing_in_flight()


def _announce(run: RunContext, group: list[Request]) -> None:
    run.store.announce(summaries=[request.threat_id for request in group])


def _process(work: _Work, outcome: Outcome) -> None:
    run, threat_id = work.run, outcome.request.threat_id
    if isinstance(outcome, FetchedSummary):
        work.writer.add(outcome)
    elif isinstance(outcome, Rejected):
        run.store.answered(threat_id)
        work.rejected.append(outcome)
    elif isinstance(outcome, Skipped):
        _close(run, threat_id)
    elif isinstance(outcome, Failed):
        run.store.answered(threat_id)
        _requeue(run, outcome)
    if work.pool.proven:
        # TAP has answered another request, so these rejections are its own answers too.
        for rejected in work.rejected:
            _close(run, rejected.request.threat_id)
        work.rejected.clear()


def _close(run: RunContext, threat_id: str) -> None:
    run.stats.summaries_skipped += 1
    with run.store.transaction() as state:
        mark_summarized(state, threat_id, run.clock.now())


def _requeue(run: RunContext, outcome: Failed | Rejected) -> None:
    """Counts a failed attempt. The summary stays open, unless another run has delivered it since."""
    threat_id = outcome.request.threat_id
    run.stats.summaries_failed += 1
    with run.store.transaction() as state:
        if summary := state.summaries.get(threat_id):
            summary.failed(run.clock.now())
    run.log.warning("The summary of threat %s stays open: %s", escape_unprintable(threat_id), outcome.reason)


def _stop_reason(run: RunContext, pool: WorkerPool) -> Retryable | None:
    stop_reason, quota = pool.stop_reason, pool.client.quota
    if isinstance(stop_reason, RateLimited) and stop_reason.lasting:
        quota.block(SUMMARIES, run.store.lease.started)
    elif pool.client.limiters[SUMMARIES].ever_succeeded:
        quota.unblock(SUMMARIES, run.clock.now())
    if stop_reason is None:
        return None
    if not isinstance(stop_reason, Retryable):
        raise stop_reason
    run.log.warning("Fetching threat summaries ended early; the rest stays open: %s", stop_reason)
    return stop_reason
