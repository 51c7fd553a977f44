"""What TAP shows of a past interval: its windows are read again, and compared with the lines as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, timedelta

from tap_forensics.audit.lines import MOST_EVENTS, BucketLines, Undecidable
from tap_forensics.clock import Deadline, floor_to_second
from tap_forensics.discovery.siem import Reading, read_window
from tap_forensics.errors import QuotaExceeded, RequestRejected, Retryable, Unavailable
from tap_forensics.records.event_lines import EVENT_TYPES, Event, read_record
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import SIEM
from tap_forensics.tap.rate_limit import call_rate_limited
from tap_forensics.tap.retry import retry
from tap_forensics.tap.windows import MIN_WINDOW, Window, bisect, plan_windows

THREATS = "threats"
# More than anybody reads; the rest is only counted.
MOST_NAMED = 10_000
_NO_CALLS = "the calls that the audit may make are used"
_ATTEMPTS = 3
# Consecutive failures before the API counts as down.
_MAX_FAILURES_IN_A_ROW = 3
_DAY = timedelta(days=1)
_LONGEST_PART = 80


@dataclass
class ShownThreat:
    """A threat in events of these windows, by their numbers."""

    priority: int
    campaign: str | None
    windows: set[int] = field(default_factory=set)


@dataclass
class Shown:
    """What TAP shows. `unread`: the numbers of windows that could not be read, and why.

    `missing`: the events without a line, as the number of their window times four, plus that of their type.
    `labels`: what a person recognizes them by, of the first `MOST_NAMED`. `events` counts all.
    """

    windows: list[Window]
    unread: dict[int, str] = field(default_factory=dict)
    threats: dict[str, ShownThreat] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    events: Counter[tuple[int, str]] = field(default_factory=Counter)

    def day(self, window: int) -> date:
        return self.windows[window].start.astimezone(UTC).date()

    def window_and_kind(self, key: int) -> tuple[int, str]:
        """Of an event without a line."""
        window, kind = divmod(self.missing[key], len(EVENT_TYPES))
        return window, EVENT_TYPES[kind]

    def add(self, number: int, reading: Reading, lines: BucketLines) -> None:
        """One window, or a piece of it. Raises `Undecidable` over `MOST_EVENTS`."""
        for threat_id, threat in reading.threats.items():
            known = self.threats.setdefault(threat_id, ShownThreat(threat.priority, threat.campaign))
            known.priority = min(known.priority, threat.priority)
            known.campaign = known.campaign or threat.campaign
            known.windows.add(number)
        for event in reading.records:
            self._add_event(number, event, lines)
        if len(self.missing) > MOST_EVENTS:
            raise Undecidable(f"over {MOST_EVENTS:,} events have no line: audit a shorter interval")

    def _add_event(self, number: int, event: Event, lines: BucketLines) -> None:
        key = event.fingerprint.key
        if key in lines.events:
            self.events[number, event.kind] += lines.events.mark_shown(key)
        elif key not in self.missing:
            self.events[number, event.kind] += 1
            self.missing[key] = number * len(EVENT_TYPES) + EVENT_TYPES.index(event.kind)
            if len(self.labels) < MOST_NAMED:
                self.labels[key] = _label(event)

    def settle(self, lines: BucketLines) -> None:
        """Lines that were written while TAP was read are no longer missing."""
        for key in [key for key in self.missing if key in lines.events]:
            lines.events.mark_shown(key)
            del self.missing[key]


def _label(event: Event) -> str:
    """Time and id of an event, which lead to it in TAP and in SecOps."""
    fields = read_record(event.record)
    time = fields.get("clickTime" if event.kind.startswith("clicks") else "messageTime")
    recipient = fields.get("recipient")
    named = [time, fields.get("id") or fields.get("GUID")]
    named += recipient[:1] if isinstance(recipient, list) else [recipient]
    return " ".join([event.kind, *(part[:_LONGEST_PART] for part in named if isinstance(part, str))])


def audit_windows(interval: Window) -> list[Window]:
    """The fewest windows that TAP accepts, none across midnight (UTC): counts are by day."""
    edges = [interval.start]
    midnight = interval.start.astimezone(UTC).replace(hour=0, minute=0, second=0) + _DAY
    while midnight < interval.end:
        if min(midnight - edges[-1], interval.end - midnight) >= MIN_WINDOW:
            edges.append(midnight)
        midnight += _DAY
    days = zip(edges, [*edges[1:], interval.end], strict=True)
    return [window for start, end in days for window in plan_windows(Window(start, end))]


@dataclass(frozen=True)
class Reader:
    """How the windows are read. `threats`, `events`: what is compared."""

    client: TapClient
    deadline: Deadline
    threats: bool
    events: bool
    before_sleep: Callable[[Exception, float], None]

    def read_all(self, shown: Shown, lines: BucketLines) -> Iterator[int]:
        """Reads every window, the oldest first, and yields how many are done. Never raises `Retryable`:
        what could not be read is in `shown.unread`.
        """
        failures = 0
        for number, window in enumerate(shown.windows):
            try:
                self._read(number, window, shown, lines)
                failures = 0
            except (RequestRejected, Unavailable) as error:
                shown.unread[number] = str(error)
                failures += 1
            except Retryable as error:
                # No calls or no time is left, which holds for the windows after it too.
                why = _NO_CALLS if isinstance(error, QuotaExceeded) else str(error)
                shown.unread |= dict.fromkeys(range(number, len(shown.windows)), why)
                return
            yield number + 1
            if failures == _MAX_FAILURES_IN_A_ROW:
                why = f"not tried, because {failures} windows in a row had no usable response"
                shown.unread |= dict.fromkeys(range(number + 1, len(shown.windows)), why)
                return

    def _read(self, number: int, window: Window, shown: Shown, lines: BucketLines) -> None:
        """One window; if it is too heavy for TAP, in halves."""
        pieces = [window]
        while pieces:
            piece = pieces.pop()
            try:
                shown.add(number, self._request(piece), lines)
            except Unavailable as error:
                halves = bisect(piece)[::-1] if error.heavy else []
                if not halves:
                    raise
                pieces += halves

    def _request(self, window: Window) -> Reading:
        now = floor_to_second(self.deadline.clock.now())

        def read_once() -> Reading:
            return read_window(self.client, window, now, threats=self.threats, events=self.events)

        return retry(
            lambda: call_rate_limited(self.client.limiters[SIEM], read_once, self.before_sleep),
            attempts=_ATTEMPTS,
            deadline=self.deadline,
            before_sleep=self.before_sleep,
        )
