"""The forensics half of a run: open threats → evidence, until the threats, the time or the quota run out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from tap_forensics.clock import Deadline
from tap_forensics.context import RunContext
from tap_forensics.errors import RateLimited, Retryable
from tap_forensics.forensics.evidence_writer import EvidenceWriter
from tap_forensics.forensics.workers import (
    Failed,
    Fetched,
    Outcome,
    Rejected,
    Skipped,
    WorkerPool,
    fetch_forensics,
)
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.open_items import mark_collected
from tap_forensics.storage.state import Threat
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import FORENSICS, PoolStatus

_PROGRESS_EVERY = 50
# Threats per worker that are announced with one commit.
_GROUP_SIZE_PER_WORKER = 4


def drain(run: RunContext, client: TapClient, deadline: Deadline) -> Retryable | None:
    """Fetches at most MAX_THREATS of the backlog into the bucket. Returns why it ended early, if it did.

    Raises `RunFailed`: `AuthenticationFailed`, or an error of the bucket. What was fetched before is written.
    """
    selected = _select(run, client)
    if not selected:
        return None
    if client.quota.status(FORENSICS, run.clock.now()) is PoolStatus.BLOCKED:
        reason = RateLimited("TAP's forensics limit was reached less than an hour ago")
        run.log.warning("%s: no calls in this run, %d threats stay on the backlog", reason, len(selected))
        return reason
    failed_before = {threat_id for threat_id, threat in selected.items() if threat.attempts}
    pool = WorkerPool(client, deadline, run.before_sleep, failed_before)
    try:
        _fetch_all(_Work(run, pool, selected))
    finally:
        _log_collected(run)
    return _stop_reason(run, pool)


def _select(run: RunContext, client: TapClient) -> dict[str, Threat]:
    """The threats of this run in their order: suspects, then untried ones by priority, then failed ones."""
    now, limit = run.clock.now(), run.settings.forensics.max_threats
    with run.store.transaction() as state:
        due = [(threat_id, threat) for threat_id, threat in state.backlog.items() if threat.due(now)]
    due.sort(key=lambda item: item[1].sort_key())
    failed = [item for item in due if item[1].attempts]
    retries = client.quota.reserve_retries(FORENSICS, len(failed), now)
    selected = [item for item in due if not item[1].attempts] + failed[:retries]
    if len(selected) > limit:
        run.log.warning("Reached max threats limit (%d)", limit)
        run.log.info("%d threats stay on the backlog for the next run", len(selected) - limit)
    run.stats.threats_chosen = min(limit, len(selected))
    return dict(selected[:limit])


@dataclass(frozen=True)
class _Work:
    """What the steps below share. `rejected`: 404 and 400 responses that may not be from TAP itself."""

    run: RunContext
    pool: WorkerPool
    selected: dict[str, Threat]
    rejected: list[Rejected] = field(default_factory=list)


def _fetch_all(work: _Work) -> None:
    for threat_id in [threat_id for threat_id, threat in work.selected.items() if threat.kills]:
        if not work.pool.stop_reason:
            # Written before the next one is requested, so that only one at a time can kill the run.
            _fetch(work, [threat_id], workers=1)
    others = [threat_id for threat_id, threat in work.selected.items() if not threat.kills]
    _fetch(work, others, work.run.settings.forensics.fetch_concurrency)
    for outcome in work.rejected:
        _requeue(work.run, outcome)


def _fetch(work: _Work, threat_ids: list[str], workers: int) -> None:
    writer = EvidenceWriter(work.run)
    announced = _announced(work.run, threat_ids, _GROUP_SIZE_PER_WORKER * workers)
    try:
        with closing(fetch_forensics(work.pool, announced, workers)) as outcomes:
            for outcome in outcomes:
                writer.flush_if_due()
                if outcome is not None:
                    _process(work, writer, outcome)
                del outcome  # frees its body before the wait for the next one
    finally:
        writer.close()


def _announced(run: RunContext, threat_ids: list[str], group_size: int) -> Iterator[str]:
    """The threats one by one. A commit announces each group before its first threat is requested."""
    remaining = iter(threat_ids)
    while group := list(islice(remaining, group_size)):
        run.store.announce(threats=group)
        yield from group


def _process(work: _Work, writer: EvidenceWriter, outcome: Outcome) -> None:
    run = work.run
    if isinstance(outcome, Fetched):
        writer.add(outcome, work.selected[outcome.threat_id].campaign)
    elif isinstance(outcome, Rejected):
        run.store.answered(outcome.threat_id)
        work.rejected.append(outcome)
    elif isinstance(outcome, Skipped):
        _skip(run, outcome.threat_id)
    else:
        _requeue(run, outcome)
    if work.pool.proven:
        _skip_all(run, work.rejected)
    run.stats.threats_answered += 1
    if run.stats.threats_answered % _PROGRESS_EVERY == 0:
        _log_progress(run, len(work.selected))


def _skip_all(run: RunContext, rejected: list[Rejected]) -> None:
    """TAP has answered another threat, so these rejections are its own answers too."""
    for outcome in rejected:
        if outcome.status != 404:
            run.log.warning("Skipped threat %s: %s", escape_unprintable(outcome.threat_id), outcome.reason)
        _skip(run, outcome.threat_id)
    rejected.clear()


def _skip(run: RunContext, threat_id: str) -> None:
    run.stats.threats_skipped += 1
    with run.store.transaction() as state:
        mark_collected(state, threat_id, run.clock.now())


def _requeue(run: RunContext, outcome: Failed | Rejected) -> None:
    """Counts a failed attempt. The threat stays open, unless another run has delivered it meanwhile."""
    run.stats.threats_failed += 1
    if isinstance(outcome, Failed):
        run.store.answered(outcome.threat_id)
    with run.store.transaction() as state:
        if threat := state.backlog.get(outcome.threat_id):
            threat.failed(run.clock.now())
    run.log.warning(
        "Threat %s stays on the backlog: %s", escape_unprintable(outcome.threat_id), outcome.reason
    )


def _log_progress(run: RunContext, total: int) -> None:
    done, reports = run.stats.threats_answered, run.stats.reports
    run.log.info("Progress: %d/%d threats, %d forensic reports collected", done, total, reports)


def _log_collected(run: RunContext) -> None:
    run.log.info(
        "Forensics collection complete: %d threats processed, %d skipped, %d reports collected",
        run.stats.threats_answered,
        run.stats.threats_skipped,
        run.stats.reports,
    )
    if not run.stats.reports:
        run.log.info("No forensic evidence retrieved.")


def _stop_reason(run: RunContext, pool: WorkerPool) -> Retryable | None:
    """Saves what 429 responses showed. Returns or raises why the pool stopped early, if it did."""
    stop_reason, quota = pool.stop_reason, pool.client.quota
    if isinstance(stop_reason, RateLimited) and stop_reason.lasting:
        quota.block(FORENSICS, run.store.lease.started)
    elif pool.client.limiters[FORENSICS].ever_succeeded:
        quota.unblock(FORENSICS)
    if stop_reason is None:
        return None
    if not isinstance(stop_reason, Retryable):
        raise stop_reason
    run.log.warning("Fetching forensics ended early; the rest stays on the backlog: %s", stop_reason)
    return stop_reason
