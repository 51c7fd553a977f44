"""One window, or what of it TAP gives now, onto the backlog and into the events' objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from tap_forensics.clock import Deadline, floor_to_second, iso
from tap_forensics.context import RunContext
from tap_forensics.discovery.event_writer import EventWriter
from tap_forensics.discovery.siem import Reading, read_window
from tap_forensics.errors import DeadlineExceeded, RequestRejected, Unavailable
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.open_items import MOST_THREATS, add_threat, close, drop_surplus, fail, unplan
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import SIEM
from tap_forensics.tap.rate_limit import call_rate_limited
from tap_forensics.tap.retry import retry
from tap_forensics.tap.windows import EDGE_MARGIN, Window, bisect

_STEP_BACK = timedelta(seconds=60)


@dataclass
class Discovery:
    """What the steps of discovery share. `events` is None if no event lines are wanted.

    `answered`: TAP itself answered a window in this run. `seen` are the threat ids of this run.
    """

    run: RunContext
    tap: TapClient
    deadline: Deadline
    events: EventWriter | None
    answered: bool = False
    seen: set[str] = field(default_factory=set)


def read(discovery: Discovery, window: Window, attempts: int) -> Unavailable | RequestRejected | None:
    """Asks for a window. What TAP answered is kept and closed; the rest stays open.

    Returns the error if there was no answer, which counts as a failed attempt. Raises `OutOfTime`,
    `RateLimited`, `QuotaSpent` and `CredentialsRefused`: nothing is counted then.
    """
    asked, step = window, _STEP_BACK
    while asked.is_long_enough():
        try:
            keep(discovery, asked, ask(discovery, asked, attempts))
        except RequestRejected as refusal:
            shorter = _shortened(asked, refusal, step)
            if shorter is None:
                return _failed(discovery, asked, refusal)
            asked, step = shorter, step * 2
            continue
        except Unavailable as error:
            return _failed(discovery, asked, error)
        break
    # What is too young is planned anew; what is too old stays open until it expires.
    with discovery.run.store.transaction() as state:
        unplan(state, Window(asked.end, window.end))
    return None


def ask(discovery: Discovery, window: Window, attempts: int) -> Reading:
    """One window, as it is. Raises as `read_window`."""
    run = discovery.run
    if discovery.deadline.passed():
        raise DeadlineExceeded("the time for reading windows is used up")
    run.stats.windows += 1
    now, client = floor_to_second(run.clock.now()), discovery.tap
    threats, events = run.settings.forensics.enabled, discovery.events is not None

    def read_once() -> Reading:
        return read_window(client, window, now, threats=threats, events=events)

    return retry(
        lambda: call_rate_limited(client.limiters[SIEM], read_once, run.before_sleep),
        attempts=attempts,
        deadline=discovery.deadline,
        before_sleep=run.before_sleep,
        may_retry=lambda: client.may_retry(SIEM),
    )


def keep(discovery: Discovery, window: Window, reading: Reading) -> None:
    """What TAP answered for a window. Its events are durable before the state knows of anything."""
    run = discovery.run
    discovery.answered = True
    if discovery.events:
        discovery.events.add(reading, window)
    discovery.seen.update(reading.threats)
    run.stats.events += reading.events
    run.stats.odd_entries += reading.odd
    with run.store.transaction() as state:
        for threat_id, threat in reading.threats.items():
            run.stats.threats_new += add_threat(state, threat_id, threat)
        surplus = drop_surplus(state)
        close(state, window)
    run.log.info(
        "Interval %s/%s: %d events, %d unique threats so far",
        iso(window.start),
        iso(window.end),
        reading.events,
        len(discovery.seen),
    )
    if reading.odd:
        run.log.info("Skipped %d entries without a valid threat ID in %s", reading.odd, window)
    for threat_id in surplus:
        run.log.error("Gave up threat %s: over %d threats wait", escape_unprintable(threat_id), MOST_THREATS)
    run.stats.threats_given_up += len(surplus)


def read_in_halves(discovery: Discovery, window: Window, calls: int) -> int:
    """A window that was too much for TAP, in halves, depth first, a call each. Returns what `calls` are left.

    Raises `Unavailable` if not even the smallest piece got an answer, and nothing did before in this run.
    """
    pieces = bisect(window)[::-1]
    while pieces and calls and discovery.tap.may_retry(SIEM):
        piece = pieces.pop()
        calls -= 1
        discovery.run.stats.extra_calls += 1
        try:
            keep(discovery, piece, ask(discovery, piece, attempts=1))
        except RequestRejected:
            continue
        except Unavailable as error:
            smaller = bisect(piece)[::-1] if error.heavy else []
            if not smaller and not discovery.answered:
                raise Unavailable(f"not even {piece} could be read: the SIEM API seems to be down") from None
            pieces += smaller
    return calls


def _shortened(window: Window, refusal: RequestRejected, step: timedelta) -> Window | None:
    """A shorter window after one of TAP's 400 sentences; None for any other refusal."""
    words = refusal.words.lower() if refusal.status == 400 else ""
    if "still current" in words:
        return Window(window.start, max(window.start, window.end - step))
    if "too far into the past" in words:
        return Window(min(window.end, window.start + EDGE_MARGIN * (step / _STEP_BACK)), window.end)
    if "too short" in words:
        return Window(window.start, window.start)
    return None


def _failed(
    discovery: Discovery, window: Window, error: Unavailable | RequestRejected
) -> Unavailable | RequestRejected:
    run = discovery.run
    run.stats.windows_failed += 1
    with run.store.transaction() as state:
        fail(state, window, run.clock.now())
    run.log.warning("Interval %s could not be read; will retry: %s", window, error)
    return error
