"""The forensics half of a run: open threats → evidence, until the threats, the time or the quota run out."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tap_forensics.clock import Deadline
from tap_forensics.context import RunContext
from tap_forensics.errors import QuotaExceeded, RateLimited, Retryable, Unavailable
from tap_forensics.forensics.evidence_writer import EvidenceWriter
from tap_forensics.forensics.planner import Step, Waiting, due_campaigns, next_step
from tap_forensics.forensics.responses import FetchedReports, parse_reports
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.open_items import campaign_failed, is_covered, mark_collected
from tap_forensics.storage.state import OpenItem
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import (
    CAMPAIGN_FORENSICS,
    FORENSICS,
    FORENSICS_POOLS,
    THREAT_FORENSICS,
    PoolStatus,
)
from tap_forensics.workers import Failed, Outcome, Rejected, Request, WorkerPool, announced, fetch_all

Item = TypeVar("Item", bound=OpenItem)

_PROGRESS_EVERY = 50
# The part of a limit that threats covered by their campaign leave to those of the next runs.
_RESERVE_DIVISOR = 6


@dataclass
class _Work:
    """What the steps share. `waiting`: what this run may still request. `closed`: pools without further calls
    in this run, and why.

    `rejected`: 404 and 400 responses that may not be from TAP itself, until TAP has answered (`proven`).
    """

    run: RunContext
    client: TapClient
    deadline: Deadline
    waiting: Waiting
    closed: dict[str, Retryable]
    stop_reason: Retryable | None = None
    proven: bool = False
    rejected: list[Rejected] = field(default_factory=list)


def drain(run: RunContext, client: TapClient, deadline: Deadline) -> Retryable | None:
    """Fetches at most MAX_THREATS of the backlog into the bucket. Returns why it ended early, if it did.

    Raises `RunFailed`: `AuthenticationFailed`, or an error of the bucket. What was fetched before is written.
    """
    work = _Work(run, client, deadline, _select(run, client), _blocked_pools(run, client))
    if not work.waiting.threats:
        return None
    try:
        while not work.stop_reason and (step := _next_step(work)):
            _fetch_step(work, step)
    finally:
        for outcome in work.rejected:
            _requeue(run, outcome)
        if run.stats.threats_answered or len(work.closed) < len(FORENSICS_POOLS):
            _log_collected(run)
    return _log_stop(work)


def _select(run: RunContext, client: TapClient) -> Waiting:
    """The threats that are due, and their campaigns; of those that failed before as many as may be retried.

    At most MAX_THREATS threats get a call of their own; the campaigns of the others are requested, too.
    """
    now, limit = run.clock.now(), run.settings.forensics.max_threats
    with run.store.transaction() as state:
        due = {threat_id: threat for threat_id, threat in state.backlog.items() if threat.due(now)}
        campaigns = due_campaigns(state, due, now, run.settings.forensics.dedup_hours)
        uncovered = {threat.campaign for threat in due.values() if not is_covered(state, threat)}
        # What killed a run must not come with a member's call either.
        uncovered -= {name for name, item in state.failed_campaigns.items() if item.kills}
    by_threat = (FORENSICS, THREAT_FORENSICS)
    threats = _without_surplus(run, client, due, by_threat)
    if len(threats) > limit:
        run.log.warning("Reached max threats limit (%d)", limit)
        run.log.info("%d threats stay on the backlog for the next run", len(threats) - limit)
    campaigns = _without_surplus(run, client, campaigns, (CAMPAIGN_FORENSICS,))
    return Waiting(threats, campaigns, {campaign for campaign in uncovered if campaign})


def _without_surplus(
    run: RunContext, client: TapClient, items: dict[str, Item], pools: tuple[str, ...]
) -> dict[str, Item]:
    """The items without the failed ones for which no retry is granted."""
    failed = [name for name, item in items.items() if item.attempts]
    failed.sort(key=lambda name: (items[name].attempts, items[name].last_attempt_at))
    granted = 0
    for pool in pools:
        granted = granted or client.quota.reserve_retries(pool, len(failed), run.clock.now())
    surplus = set(failed[granted:])
    return {name: item for name, item in items.items() if name not in surplus}


def _blocked_pools(run: RunContext, client: TapClient) -> dict[str, Retryable]:
    now = run.clock.now()
    blocked = [pool for pool in FORENSICS_POOLS if client.quota.status(pool, now) is PoolStatus.BLOCKED]
    return {pool: RateLimited("TAP's forensics limit is reached") for pool in blocked}


def _next_step(work: _Work) -> Step | None:
    forensics, stats = work.run.settings.forensics, work.run.stats
    step = next_step(_with_calls_left(work), forensics.campaign_first)
    if step is None or step.pool == CAMPAIGN_FORENSICS:
        return step
    requests = step.requests[: forensics.max_threats - stats.threats_answered]
    stats.threats_chosen = stats.threats_answered + len(requests)
    return Step(step.pool, requests) if requests else None


def _with_calls_left(work: _Work) -> Waiting:
    quota, now = work.client.quota, work.run.clock.now()
    probes = {pool for pool in FORENSICS_POOLS if quota.status(pool, now) is PoolStatus.PROBE}
    probes -= work.closed.keys()
    left = {pool: 1 if pool in probes else quota.left(pool, now) for pool in FORENSICS_POOLS}
    return replace(
        work.waiting,
        left=left | dict.fromkeys(work.closed, 0),
        reserved={pool: (quota.limit(pool) or 0) // _RESERVE_DIVISOR for pool in FORENSICS_POOLS},
        probe=FORENSICS in probes,
    )


def _fetch_step(work: _Work, step: Step) -> None:
    pool = WorkerPool(
        work.client,
        step.pool,
        lambda request: work.client.forensics(request.name, step.pool),
        parse_reports,
        work.deadline,
        work.run.before_sleep,
        work.proven,
    )
    work.client.expect_429(step.pool)
    # Written before the next one is requested, so that only one at a time can kill the run.
    for request in [request for request in step.requests if request.item.kills]:
        if not pool.stop_reason:
            _fetch(work, pool, [request], workers=1)
    others = [request for request in step.requests if not request.item.kills]
    _fetch(work, pool, others, work.run.settings.forensics.fetch_concurrency)
    _count_step(work, pool)


def _fetch(work: _Work, pool: WorkerPool, requests: list[Request], workers: int) -> None:
    writer = EvidenceWriter(work.run)
    in_groups = announced(requests, workers, lambda group: _announce(work.run, group))
    try:
        with closing(fetch_all(pool, in_groups, workers)) as outcomes:
            for outcome in outcomes:
                writer.flush_if_due()
                work.proven = pool.proven
                if outcome is not None:
                    _process(work, writer, outcome)
                del outcome  # frees its body before the wait for the next one
    finally:
        writer.close()
    work.run.store.nothing_in_flight()


def _announce(run: RunContext, group: list[Request]) -> None:
    run.store.announce(
        threats=[request.threat_id for request in group if not request.campaign],
        campaigns=[request.campaign for request in group if request.campaign],
    )


def _process(work: _Work, writer: EvidenceWriter, outcome: Outcome) -> None:
    run, request = work.run, outcome.request
    if request.campaign:
        work.waiting.campaigns.pop(request.campaign, None)
        if isinstance(outcome, Failed) and outcome.too_large:
            # With a member's own report it would be too large as well.
            work.waiting.uncovered.discard(request.campaign)
    else:
        work.waiting.threats.pop(request.threat_id, None)
        run.stats.threats_answered += 1
    if isinstance(outcome, FetchedReports):
        work.waiting.uncovered.discard(request.linked_campaign or "")
        writer.add(outcome)
    elif isinstance(outcome, Rejected):
        run.store.answered(request.name)
        work.rejected.append(outcome)
    elif isinstance(outcome, Failed):
        run.store.answered(request.name)
        _requeue(run, outcome)
    else:
        run.store.answered(request.name)
        _skip(run, request)
    if work.proven:
        _skip_all(run, work.rejected)
    if not request.campaign and run.stats.threats_answered % _PROGRESS_EVERY == 0:
        _log_progress(run)


def _skip_all(run: RunContext, rejected: list[Rejected]) -> None:
    """TAP has answered another request, so these rejections are its own answers too."""
    for outcome in rejected:
        if outcome.status != 404:
            run.log.warning("Skipped %s: %s", _described(outcome.request), outcome.reason)
        _skip(run, outcome.request)
    rejected.clear()


def _skip(run: RunContext, request: Request) -> None:
    """TAP has no evidence. Of a campaign it may have a report later, while one of its threats is open."""
    with run.store.transaction() as state:
        if request.campaign:
            campaign_failed(state, request.campaign, run.clock.now())
            return
        run.stats.threats_skipped += 1
        mark_collected(state, request.threat_id, run.clock.now())


def _requeue(run: RunContext, outcome: Failed | Rejected) -> None:
    """Counts a failed attempt. The item stays open, unless another run has delivered it since."""
    request = outcome.request
    with run.store.transaction() as state:
        if request.campaign:
            campaign_failed(state, request.campaign, run.clock.now())
        elif threat := state.backlog.get(request.threat_id):
            threat.failed(run.clock.now())
    run.stats.threats_failed += not request.campaign
    where = "will be requested again while its threats wait" if request.campaign else "stays on the backlog"
    described = _described(request)
    run.log.warning("%s %s: %s", described[0].upper() + described[1:], where, outcome.reason)


def _described(request: Request) -> str:
    kind = "campaign" if request.campaign else "threat"
    return f"{kind} {escape_unprintable(request.name)}"


def _count_step(work: _Work, pool: WorkerPool) -> None:
    """Saves what 429 responses showed. Closes the pool, or records or raises why the run must stop."""
    name, stop_reason, quota = pool.quota_pool, pool.stop_reason, work.client.quota
    if isinstance(stop_reason, RateLimited) and stop_reason.lasting:
        quota.block(name, work.run.store.lease.started)
    elif work.client.limiters[name].ever_succeeded:
        quota.unblock(name, work.run.clock.now())
    # Calls by threatId may work if those by campaignId do not; if the API is down, they show that too.
    closes = RateLimited | QuotaExceeded | (Unavailable if name == CAMPAIGN_FORENSICS else RateLimited)
    if isinstance(stop_reason, closes):
        work.closed[name] = stop_reason
        work.run.log.info("No more calls of the type %s in this run: %s", name, stop_reason)
    elif isinstance(stop_reason, Retryable):
        work.stop_reason = stop_reason
    elif stop_reason:
        raise stop_reason


def _log_stop(work: _Work) -> Retryable | None:
    """Returns why threats that were due got no call, if it was not MAX_THREATS."""
    run, waiting = work.run, len(work.waiting.threats)
    more_allowed = run.stats.threats_answered < run.settings.forensics.max_threats
    if work.stop_reason is None and waiting and more_allowed:
        no_calls = QuotaExceeded("no forensics calls are left within the limits of 24 hours")
        work.stop_reason = next(iter(work.closed.values()), no_calls)
    if work.stop_reason is None:
        return None
    if run.stats.threats_answered:
        run.log.warning("Fetching forensics ended early; the rest stays on the backlog: %s", work.stop_reason)
    else:
        run.log.warning("%s: %d threats stay on the backlog", work.stop_reason, waiting)
    return work.stop_reason


def _log_progress(run: RunContext) -> None:
    done, chosen, reports = run.stats.threats_answered, run.stats.threats_chosen, run.stats.reports
    run.log.info("Progress: %d/%d threats, %d forensic reports collected", done, chosen, reports)


def _log_collected(run: RunContext) -> None:
    run.log.info(
        "Forensics collection complete: %d threats processed, %d skipped, %d reports collected",
        run.stats.threats_answered,
        run.stats.threats_skipped,
        run.stats.reports,
    )
    if not run.stats.reports:
        run.log.info("No forensic evidence retrieved.")
