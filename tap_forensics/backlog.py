"""The backlog → forensics: by priority, until it is worked off, or out of time, or out of quota."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

from tap_forensics.bucket import Bucket
from tap_forensics.clock import Clock, Deadline
from tap_forensics.delivery import Delivery
from tap_forensics.errors import RateLimited, TryLater
from tap_forensics.figures import Figures
from tap_forensics.forensics import Failed, FanOut, Fetched, Outcome, Skipped, fetch_forensics
from tap_forensics.held import HeldState
from tap_forensics.ledger import FORENSICS, Standing
from tap_forensics.log import harmless
from tap_forensics.settings import Settings
from tap_forensics.state import Threat, settle
from tap_forensics.tap import Tap
from tap_forensics.throttle import Gate

_GIVEN_UP_AFTER = timedelta(days=7)
_PROGRESS_EVERY = 50


@dataclass(frozen=True)
class Fetching:
    """What the steps below share."""

    held: HeldState
    tap: Tap
    bucket: Bucket
    settings: Settings
    clock: Clock
    deadline: Deadline
    log: logging.Logger
    figures: Figures
    waiting: Callable[[Exception, float], None]


def work_off(run: Fetching) -> TryLater | None:
    """Fetches at most MAX_THREATS of the backlog into the bucket; gives what ended it early, if anything.

    Raises `CredentialsRefused`, or a `RunFailed` of the bucket; what was fetched until then is written.
    """
    chosen = _choose(run)
    standing = run.tap.ledger.standing(FORENSICS, run.clock.now())
    if not chosen:
        return None
    if standing is Standing.CLOSED:
        run.log.warning("The forensics limit was met within the hour: no call now, %d wait", len(chosen))
        return RateLimited("the forensics limit was met within the hour")
    gate = Gate(run.clock, run.deadline, one_call=standing is Standing.ONE_CALL)
    fan_out = FanOut(run.tap, gate, run.deadline, run.waiting)
    _fetch(run, fan_out, chosen)
    return _ended(run, fan_out.ended_by, gate)


def _choose(run: Fetching) -> dict[str, Threat]:
    most = run.settings.max_threats
    with run.held.changing() as state:
        turns = sorted(state.backlog.items(), key=lambda item: item[1].turn())
    if len(turns) > most:
        run.log.warning("Reached max threats limit (%d)", most)
        run.log.info("%d threats stay on the backlog for the next run", len(turns) - most)
    run.figures.threats_chosen = min(most, len(turns))
    return dict(turns[:most])


def _fetch(run: Fetching, fan_out: FanOut, chosen: dict[str, Threat]) -> None:
    delivery = Delivery(run.held, run.bucket, run.settings, run.clock, run.log, run.figures)
    try:
        with closing(fetch_forensics(fan_out, chosen, run.settings.fetch_concurrency)) as outcomes:
            for outcome in outcomes:
                delivery.hand_over_if_due()
                if outcome is None:
                    continue
                _settle(run, delivery, chosen, outcome)
                del outcome  # its body must not stay while the next is waited for
                run.figures.threats_answered += 1
                if run.figures.threats_answered % _PROGRESS_EVERY == 0:
                    _tell_progress(run, len(chosen))
    finally:
        delivery.finish()
    run.log.info(
        "Forensics collection complete: %d threats processed, %d skipped, %d reports collected",
        run.figures.threats_answered,
        run.figures.threats_skipped,
        run.figures.reports,
    )
    if not run.figures.reports:
        run.log.info("No forensic evidence retrieved.")


def _settle(run: Fetching, delivery: Delivery, chosen: dict[str, Threat], outcome: Outcome) -> None:
    if isinstance(outcome, Fetched):
        delivery.take(outcome, chosen[outcome.threat_id].campaign)
    elif isinstance(outcome, Skipped):
        _skip(run, outcome)
    else:
        _leave(run, outcome)


def _skip(run: Fetching, outcome: Skipped) -> None:
    run.figures.threats_skipped += 1
    if outcome.refused:
        run.log.warning("Skipped threat %s: %s", harmless(outcome.threat_id), outcome.why)
    with run.held.changing() as state:
        settle(state, outcome.threat_id, run.clock.now())


def _leave(run: Fetching, outcome: Failed) -> None:
    """Back to the backlog, until it has failed for as long as TAP keeps what it is about."""
    now = run.clock.now()
    run.figures.threats_failed += 1
    with run.held.changing() as state:
        threat = state.backlog[outcome.threat_id]
        threat.attempts += 1
        threat.failing_since = threat.failing_since or now
        given_up = now - threat.failing_since >= _GIVEN_UP_AFTER
        if given_up:
            settle(state, outcome.threat_id, now)
    shown = harmless(outcome.threat_id)
    if given_up:
        run.figures.threats_given_up += 1
        run.log.error("Gave up threat %s, which failed for 7 days: %s", shown, outcome.why)
    else:
        run.log.warning("Threat %s stays on the backlog: %s", shown, outcome.why)


def _tell_progress(run: Fetching, of: int) -> None:
    done, reports = run.figures.threats_answered, run.figures.reports
    run.log.info("Progress: %d/%d threats, %d forensic reports collected", done, of, reports)


def _ended(run: Fetching, ended_by: Exception | None, gate: Gate) -> TryLater | None:
    """Remembers what 429 taught; raises what is no reason to try later."""
    if isinstance(ended_by, RateLimited) and ended_by.lasting:
        run.tap.ledger.limit_met(FORENSICS, run.held.lease.started)
    elif gate.ever_passed:
        run.tap.ledger.limit_gone(FORENSICS)
    if ended_by is None:
        return None
    if not isinstance(ended_by, TryLater):
        raise ended_by
    run.log.warning("Fetching forensics ended early; the rest stays on the backlog: %s", ended_by)
    return ended_by
