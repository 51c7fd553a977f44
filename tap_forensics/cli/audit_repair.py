"""`tap-forensics audit --repair`: what is missing is open again, by one commit between two runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from tap_forensics.cli.audit_work import Audit, find
from tap_forensics.clock import Deadline
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import LeaseHeld, StorageFailed
from tap_forensics.storage.bucket import Conflict
from tap_forensics.storage.open_items import add_threat, reopen
from tap_forensics.storage.state import VERSION, State, Threat, encode
from tap_forensics.storage.state_store import FoundState
from tap_forensics.tap.quota import Quota

_JSON = "application/json"
_LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Repaired:
    """How many threats and windows are open again."""

    threats: int
    windows: int

    def as_fields(self) -> dict[str, Any]:
        return asdict(self)


def reopen_missing(audit: Audit, wait_seconds: float) -> Repaired:
    """Waits for a run that is at work. Raises `LeaseHeld`, `StorageFailed` or `StateUnreadable`."""
    deadline = Deadline.after(audit.clock, wait_seconds)
    threats, windows = audit.compared.threats_to_reopen, audit.compared.windows_to_reopen
    while (threats or windows) and (reason := _try(audit)):
        if deadline.passed():
            raise LeaseHeld(f"nothing was repaired: {reason}")
        audit.say(f"Waiting to repair: {reason}")
        audit.clock.sleep(_LOOK_AGAIN_SECONDS)
    return Repaired(len(threats), len(windows))


def _try(audit: Audit) -> str:
    """Commits the repair. Returns why it was not possible; empty if it was."""
    bucket, found = find(audit.settings, audit.client, audit.clock)
    if reason := _why_not_now(found):
        return reason
    try:
        # Without a lease, which a single commit does not need: if a run starts in between, this fails.
        data = encode(_reopened(audit, found))
        bucket.replace(state_location(audit.settings).name, data, _JSON, found.generation)
    except Conflict:
        return "another run has just started"
    return ""


def _why_not_now(found: FoundState) -> str:
    """A run that died must be taken over first: what it wrote is not in the state yet."""
    if not found.generation:
        raise StorageFailed("there is no working state of this version yet: start a run first")
    lease = found.state.lease
    if lease is None:
        return ""
    return (
        f"run {lease.run_id} is at work"
        if found.live
        else f"run {lease.run_id} died; the next run takes over"
    )


def _reopened(audit: Audit, found: FoundState) -> State:
    """The state with what is missing, and with the calls that the audit made."""
    state, now = found.state, found.clock.now()
    for threat_id in audit.compared.threats_to_reopen:
        shown = audit.shown.threats[threat_id]
        add_threat(state, threat_id, Threat(shown.priority, now, now, shown.campaign))
    for number in audit.compared.windows_to_reopen:
        reopen(state, audit.shown.windows[number], now)
    quota = Quota(state.calls, dict.fromkeys(audit.calls))
    for pool, calls in audit.calls.items():
        for _ in range(calls):
            quota.reserve(pool, now)
    return msgspec.structs.replace(state, version=VERSION, calls=state.calls | quota.dump())
