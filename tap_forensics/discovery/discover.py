"""The SIEM half of a run: open windows → backlog and event lines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tap_forensics.discovery.window_reader import Discovery, bisect_window, read_open_window
from tap_forensics.errors import QuotaExceeded, Retryable, Unavailable
from tap_forensics.storage.open_items import due_windows
from tap_forensics.storage.state import Gap, State
from tap_forensics.tap.quota import SIEM, before_the_end
from tap_forensics.tap.windows import Window

# Windows that are announced with one commit.
_GROUP_SIZE = 8
_ATTEMPTS = 3
# Consecutive failures before the API counts as down.
_MAX_FAILURES_IN_A_ROW = 3
_MAX_BISECT_CALLS = 60

# A window, and the gap that it is part of.
_DueWindow = tuple[Window, Gap]


def discover(discovery: Discovery) -> Retryable | None:
    """Reads the open windows that are due. Returns why it ended early, if it did.

    Raises `RunFailed`: `AuthenticationFailed`, or an error of the bucket.
    """
    run, stop_reason = discovery.run, None
    try:
        _read_windows(discovery)
    except Retryable as error:
        stop_reason = error
    run.stats.threats_found = len(discovery.threat_ids)
    run.log.info("Found %d unique threat IDs", len(discovery.threat_ids))
    if stop_reason:
        run.log.warning("Discovery ended early; the next run continues: %s", stop_reason)
    return stop_reason


def _read_windows(discovery: Discovery) -> None:
    run = discovery.run
    with run.store.transaction() as state:
        due = due_windows(state, run.clock.now())
        failed_before = any(gap.attempts for gap in state.gaps)
    selected = _select(discovery, due)
    run.stats.windows_planned = len(selected)
    heavy: list[Window] = []
    stop_reason: Retryable | None = None
    try:
        _read_selected(discovery, selected, heavy, failed_before)
    except (QuotaExceeded, Unavailable) as error:
        stop_reason = error
    if discovery.answered or not failed_before:
        _bisect(discovery, heavy)
    if stop_reason:
        raise stop_reason


def _read_selected(
    discovery: Discovery, selected: list[_DueWindow], heavy: list[Window], failed_before: bool
) -> None:
    """Adds to `heavy` the windows that are too heavy for TAP."""
    failures = 0
    for window, gap in _announced(discovery, selected):
        # If the API was down in the last run, one call is enough to see whether it is up again.
        may_be_up = discovery.answered or not failed_before
        error = read_open_window(discovery, window, _ATTEMPTS if may_be_up and gap.untried() else 1)
        failures = failures + 1 if error else 0
        if isinstance(error, Unavailable) and error.heavy:
            heavy.append(window)
        if failures == _MAX_FAILURES_IN_A_ROW:
            raise Unavailable(f"{failures} windows in a row could not be read: the SIEM API seems to be down")


def _bisect(discovery: Discovery, heavy: list[Window]) -> None:
    calls = _MAX_BISECT_CALLS
    for window in heavy:
        if calls:
            # If a half kills the run, this window is the suspect.
            discovery.run.store.announce(windows=[window])
            calls = bisect_window(discovery, window, calls)


def _select(discovery: Discovery, due: list[_DueWindow]) -> list[_DueWindow]:
    """All windows that have not failed yet, and as many of the failed ones as may be retried."""
    quota, now = discovery.client.quota, discovery.run.clock.now()
    not_failed = [entry for entry in due if not entry[1].attempts]
    failed = [entry for entry in due if entry[1].attempts]
    retries = failed[: quota.reserve_retries(SIEM, len(failed), now)]
    return before_the_end(not_failed, retries, quota.left(SIEM, now))


def first_group(state: State, now: datetime) -> list[Window]:
    """The windows that a run requests first. The commit of the plan announces them."""
    not_failed = [entry for entry in due_windows(state, now) if not entry[1].attempts]
    return [window for window, _ in next(_groups(not_failed), [])]


def _announced(discovery: Discovery, selected: list[_DueWindow]) -> Iterator[_DueWindow]:
    """The windows one by one. A commit announces each group before its first window is requested.

    The commit of the plan has announced the first group.
    """
    store = discovery.run.store
    for group in _groups(selected):
        windows = [window for window, _ in group]
        if [(window.start, window.end) for window in windows] != store.lease.reading:
            store.announce(windows=windows)
        yield from group


def _groups(selected: list[_DueWindow]) -> Iterator[list[_DueWindow]]:
    """Each suspect alone, the others in groups of `_GROUP_SIZE`."""
    suspects = [entry for entry in selected if entry[1].kills]
    others = [entry for entry in selected if not entry[1].kills]
    yield from ([entry] for entry in suspects)
    for start in range(0, len(others), _GROUP_SIZE):
        yield others[start : start + _GROUP_SIZE]
