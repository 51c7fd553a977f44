"""The forensics half of a run: open threats → evidence, until none is left, or no time, or no quota."""

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
# So many threats a worker are announced with one commit.
_ANNOUNCED_PER_WORKER = 4


def drain(run: RunContext, tap: TapClient, deadline: Deadline) -> Retryable | None:
    """Fetches at most MAX_THREATS of the backlog into the bucket; returns what ended it early, if anything.

    Raises `CredentialsRefused`, or a `RunFailed` of the bucket; what was fetched until then is written.
    """
    chosen = _select(run, tap)
    if not chosen:
        return None
    if tap.quota.status(FORENSICS, run.clock.now()) is PoolStatus.BLOCKED:
        run.log.warning("The forensics limit was met within the hour: no call now, %d wait", len(chosen))
        return RateLimited("the forensics limit was met within the hour")
    failed_before = {name for name, threat in chosen.items() if threat.attempts}
    pool = WorkerPool(tap, deadline, run.before_sleep, failed_before)
    try:
        _fetch_all(_Drain(run, pool, chosen))
    finally:
        _log_collected(run)
    return _ended(run, pool)


def _select(run: RunContext, tap: TapClient) -> dict[str, Threat]:
    """The threats of this run, in their order: suspects, then untried ones by priority, then failed ones."""
    now, most = run.clock.now(), run.settings.forensics.max_threats
    with run.store.transaction() as state:
        due = [(name, threat) for name, threat in state.backlog.items() if threat.due(now)]
    due.sort(key=lambda item: item[1].sort_key())
    failed = [item for item in due if item[1].attempts]
    retries = tap.quota.reserve_retries(FORENSICS, len(failed), now)
    chosen = [item for item in due if not item[1].attempts] + failed[:retries]
    if len(chosen) > most:
        run.log.warning("Reached max threats limit (%d)", most)
        run.log.info("%d threats stay on the backlog for the next run", len(chosen) - most)
    run.stats.threats_chosen = min(most, len(chosen))
    return dict(chosen[:most])


@dataclass(frozen=True)
class _Drain:
    """What the steps below share. `rejected`: 404 and 400 responses that may not be TAP's own."""

    run: RunContext
    pool: WorkerPool
    chosen: dict[str, Threat]
    rejected: list[Rejected] = field(default_factory=list)


def _fetch_all(drain: _Drain) -> None:
    for name in [name for name, threat in drain.chosen.items() if threat.kills]:
        if not drain.pool.stop_reason:
            # Written before the next one is asked for: only one at a time can kill the run.
            _fetch(drain, [name], workers=1)
    others = [name for name, threat in drain.chosen.items() if not threat.kills]
    _fetch(drain, others, drain.run.settings.forensics.fetch_concurrency)
    for outcome in drain.rejected:
        _requeue(drain.run, outcome)


def _fetch(drain: _Drain, names: list[str], workers: int) -> None:
    writer = EvidenceWriter(drain.run)
    announced = _announced(drain.run, names, _ANNOUNCED_PER_WORKER * workers)
    try:
        with closing(fetch_forensics(drain.pool, announced, workers)) as outcomes:
            for outcome in outcomes:
                writer.flush_if_due()
                if outcome is not None:
                    _settle(drain, writer, outcome)
                del outcome  # its body must not stay while the next is waited for
    finally:
        writer.close()


def _announced(run: RunContext, names: list[str], most: int) -> Iterator[str]:
    """The threats one by one; before each group of them a commit says that they are going to be asked for."""
    left = iter(names)
    while group := list(islice(left, most)):
        run.store.announce(threats=group)
        yield from group


def _settle(drain: _Drain, writer: EvidenceWriter, outcome: Outcome) -> None:
    run = drain.run
    if isinstance(outcome, Fetched):
        writer.add(outcome, drain.chosen[outcome.threat_id].campaign)
    elif isinstance(outcome, Rejected):
        run.store.answered(outcome.threat_id)
        drain.rejected.append(outcome)
    elif isinstance(outcome, Skipped):
        _skip(run, outcome.threat_id)
    else:
        _requeue(run, outcome)
    if drain.pool.proven:
        _skip_all(run, drain.rejected)
    run.stats.threats_answered += 1
    if run.stats.threats_answered % _PROGRESS_EVERY == 0:
        _log_progress(run, len(drain.chosen))


def _skip_all(run: RunContext, rejected: list[Rejected]) -> None:
    """TAP answers other threats, so what it says of these is its own word."""
    for outcome in rejected:
        if outcome.status != 404:
            run.log.warning("Skipped threat %s: %s", escape_unprintable(outcome.threat_id), outcome.why)
        _skip(run, outcome.threat_id)
    rejected.clear()


def _skip(run: RunContext, threat_id: str) -> None:
    run.stats.threats_skipped += 1
    with run.store.transaction() as state:
        mark_collected(state, threat_id, run.clock.now())


def _requeue(run: RunContext, outcome: Failed | Rejected) -> None:
    """Counts a failed attempt; the threat stays open, unless it was delivered by another run meanwhile."""
    run.stats.threats_failed += 1
    if isinstance(outcome, Failed):
        run.store.answered(outcome.threat_id)
    with run.store.transaction() as state:
        if threat := state.backlog.get(outcome.threat_id):
            threat.failed(run.clock.now())
    run.log.warning("Threat %s stays on the backlog: %s", escape_unprintable(outcome.threat_id), outcome.why)


def _log_progress(run: RunContext, of: int) -> None:
    done, reports = run.stats.threats_answered, run.stats.reports
    run.log.info("Progress: %d/%d threats, %d forensic reports collected", done, of, reports)


def _log_collected(run: RunContext) -> None:
    run.log.info(
        "Forensics collection complete: %d threats processed, %d skipped, %d reports collected",
        run.stats.threats_answered,
        run.stats.threats_skipped,
        run.stats.reports,
    )
    if not run.stats.reports:
        run.log.info("No forensic evidence retrieved.")


def _ended(run: RunContext, pool: WorkerPool) -> Retryable | None:
    """Remembers what was learned from 429 responses; raises what is no reason to try later."""
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
