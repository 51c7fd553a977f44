"""The SIEM half of a run: open windows → backlog and event lines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tap_forensics.discovery.window_reader import Discovery, read, read_in_halves
from tap_forensics.errors import Retryable, Unavailable
from tap_forensics.storage.open_items import due_windows
from tap_forensics.storage.state import Gap, State
from tap_forensics.tap.quota import SIEM
from tap_forensics.tap.windows import Window

# So many windows are announced with one commit.
_ANNOUNCED = 8
_ATTEMPTS = 3
_DOWN_AFTER = 3
_MOST_BISECT_CALLS = 60


def discover(discovery: Discovery) -> Retryable | None:
    """Reads the open windows that are due; returns what ended it early, if anything did.

    Raises `CredentialsRefused`, or a `RunFailed` of the bucket.
    """
    run = discovery.run
    stopped = None
    try:
        _read_windows(discovery)
    except Retryable as error:
        stopped = error
    run.stats.threats_found = len(discovery.seen)
    run.log.info("Found %d unique threat IDs", len(discovery.seen))
    return stopped


def _read_windows(discovery: Discovery) -> None:
    run = discovery.run
    with run.store.transaction() as state:
        due = due_windows(state, run.clock.now())
        failed_before = any(gap.attempts for gap in state.gaps)
    chosen = _within_share(discovery, due)
    run.stats.windows_planned = len(chosen)
    failures, heavy = 0, []
    for window, gap in _announced(discovery, chosen):
        # An API that gave no answer to the last run is not asked three times by each run that follows.
        hopeful = discovery.answered or not failed_before
        error = read(discovery, window, _ATTEMPTS if hopeful and gap.untried() else 1)
        failures = failures + 1 if error else 0
        if isinstance(error, Unavailable) and error.heavy:
            heavy.append(window)
        if failures == _DOWN_AFTER:
            break
    calls = _MOST_BISECT_CALLS
    for window in heavy if discovery.answered or not failed_before else []:
        calls = read_in_halves(discovery, window, calls)
    if failures == _DOWN_AFTER:
        raise Unavailable(f"{failures} windows in a row could not be read: the SIEM API seems to be down")


def _within_share(discovery: Discovery, due: list[tuple[Window, Gap]]) -> list[tuple[Window, Gap]]:
    """All windows that did not fail yet, and of the others as many as may be asked again."""
    failed = [entry for entry in due if entry[1].attempts]
    retries = discovery.tap.quota.reserve_retries(SIEM, len(failed), discovery.run.clock.now())
    return [entry for entry in due if not entry[1].attempts] + failed[:retries]


def first_group(state: State, now: datetime) -> list[Window]:
    """What a run asks for first; the plan's commit announces it."""
    certain = [entry for entry in due_windows(state, now) if not entry[1].attempts]
    return [window for window, _ in next(_groups(certain), [])]


def _announced(discovery: Discovery, chosen: list[tuple[Window, Gap]]) -> Iterator[tuple[Window, Gap]]:
    """The windows one by one; before each group of them a commit says that they are going to be asked for.

    A suspect is a group of its own. The plan's commit announced the first group.
    """
    store = discovery.run.store
    for group in _groups(chosen):
        windows = [window for window, _ in group]
        if [(window.start, window.end) for window in windows] != store.lease.reading:
            store.announce(windows=windows)
        yield from group


def _groups(chosen: list[tuple[Window, Gap]]) -> Iterator[list[tuple[Window, Gap]]]:
    """Suspects alone, the others in groups of `_ANNOUNCED`."""
    suspects = [entry for entry in chosen if entry[1].kills]
    others = [entry for entry in chosen if not entry[1].kills]
    yield from ([entry] for entry in suspects)
    for start in range(0, len(others), _ANNOUNCED):
        yield others[start : start + _ANNOUNCED]
