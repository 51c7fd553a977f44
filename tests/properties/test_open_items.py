"""Open windows against a model: what is known of each 20 seconds on their own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_forensics.storage.open_items import (
    all_read_until,
    close,
    count_kills,
    drop_surplus,
    due_windows,
    expire,
    fail,
    mark_campaigns,
    plan,
    read_until,
    reopen,
)
from tap_forensics.storage.state import VERSION, Gap, Lease, State, Threat
from tap_forensics.tap.windows import MAX_WINDOW, MIN_WINDOW, RETENTION, Window, oldest_start, plan_range

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
# Shorter than the shortest window.
TICK = timedelta(seconds=20)
TICKS = 1000
HOUR = timedelta(hours=1)


def at(tick: int) -> datetime:
    return NOW + tick * TICK


def tick_of(moment: datetime) -> int:
    assert (moment - NOW) % TICK == timedelta()
    return (moment - NOW) // TICK


def ticks(window: Window) -> set[int]:
    return set(range(tick_of(window.start), tick_of(window.end)))


def open_ticks(state: State) -> dict[int, Gap]:
    """The gap of each; no two gaps may share one."""
    found: dict[int, Gap] = {}
    for gap in state.gaps:
        assert gap.start < gap.end
        shared = ticks(gap.window()) & found.keys()
        assert not shared
        found |= dict.fromkeys(ticks(gap.window()), gap)
    assert state.gaps == sorted(state.gaps, key=lambda gap: gap.start)
    return found


def history(state: State) -> dict[int, tuple[int, int]]:
    return {tick: (gap.attempts, gap.kills) for tick, gap in open_ticks(state).items()}


windows = (
    st.tuples(st.integers(0, TICKS), st.integers(1, 400))
    .map(lambda place: Window(at(place[0]), at(min(TICKS, place[0] + place[1]))))
    .filter(lambda window: window.start < window.end)
)
# A plan is made at a moment that is mostly later than the last one.
plans = st.tuples(st.integers(-100, 400), st.integers(0, 200), st.integers(0, 30))
steps = st.tuples(st.sampled_from(["close", "fail", "reopen", "kill"]), windows) | st.tuples(
    st.just("plan"), plans
)


@dataclass
class Model:
    """Attempts and kills of each open tick."""

    open: dict[int, tuple[int, int]] = field(default_factory=dict)

    def change(self, window: Window, attempts: int, kills: int | None) -> None:
        """One more attempt, or one more kill where `kills` is 1."""
        for tick in ticks(window) & self.open.keys():
            had_attempts, had_kills = self.open[tick]
            self.open[tick] = (had_attempts + attempts, 0 if kills is None else had_kills + kills)

    def opened(self, window: Window, *, anew: bool) -> None:
        fresh = dict.fromkeys(ticks(window), (0, 0))
        self.open = self.open | fresh if anew else fresh | self.open


def planned(state: State, model: Model, now: datetime, overlap: timedelta, lag: timedelta) -> None:
    cursor = state.last_event_time
    span = plan_range(cursor, now, lookback=HOUR, overlap=overlap, lag=lag)
    end = tick_of(span.window.end)
    plan(state, span, now)
    model.open = {tick: known for tick, known in model.open.items() if tick < end}
    if span.window.is_long_enough():
        model.opened(span.window, anew=False)
        assert state.last_event_time == span.window.end
    else:
        assert state.last_event_time == (cursor and min(cursor, span.window.end))


def taken(state: State, model: Model, name: str, window: Window) -> None:
    if name == "close":
        close(state, window)
        model.open = {t: known for t, known in model.open.items() if t not in ticks(window)}
    elif name == "fail":
        fail(state, window, NOW)
        model.change(window, 1, None)
    elif name == "kill":
        count_kills(state, Lease("20260304_090000", "o", NOW, reading=[(window.start, window.end)]), NOW)
        model.change(window, 0, 1)
    else:
        reopen(state, window, NOW)
        model.opened(window, anew=True)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(steps, max_size=12))
def test_no_open_moment_is_lost_or_gets_anothers_history_whatever_happens(
    steps: list[tuple[str, Window | tuple[int, int, int]]],
) -> None:
    state, model, now = State(VERSION), Model(), 500
    for name, argument in steps:
        if isinstance(argument, tuple):
            step, overlap, lag = argument
            now += step
            planned(state, model, at(now), overlap * TICK, lag * TICK)
        else:
            taken(state, model, name, argument)
        assert history(state) == model.open


@given(st.lists(windows, max_size=5), plans, st.none() | st.integers(0, TICKS))
def test_after_a_plan_all_from_the_overlap_to_the_lag_is_open_and_nothing_later(
    gaps: list[Window], made: tuple[int, int, int], cursor: int | None
) -> None:
    now, overlap, lag = made
    state, model = State(VERSION, last_event_time=None if cursor is None else at(cursor)), Model()
    for gap in gaps:
        reopen(state, gap, NOW)
    before = set(open_ticks(state))
    planned(state, model, at(now), overlap * TICK, lag * TICK)
    after = set(open_ticks(state))
    assert {tick for tick in before if tick < now - lag} <= after
    if cursor is not None and now - lag - (cursor - overlap) >= 2:
        assert set(range(cursor - overlap, now - lag)) <= after
    assert all(tick < now - lag for tick in after)


@given(st.lists(windows, min_size=1, max_size=6))
def test_every_window_that_a_dead_run_was_reading_counts_a_kill(reading: list[Window]) -> None:
    state, model = State(VERSION), Model()
    whole = Window(at(100), at(900))
    reopen(state, whole, NOW)
    model.opened(whole, anew=True)
    for window in reading:
        model.change(window, 0, 1)
    dead = Lease("20260304_090000", "o", NOW, reading=[(w.start, w.end) for w in reading])
    quarantined = count_kills(state, dead, NOW)
    assert history(state) == model.open
    assert bool(quarantined) == any(kills >= 2 for _, kills in model.open.values())


histories = st.tuples(
    st.integers(0, 9), st.integers(0, 3), st.none() | st.integers(0, 30).map(lambda h: NOW - h * HOUR)
)


@given(st.lists(st.tuples(windows, histories), max_size=6))
def test_what_is_due_is_asked_for_in_windows_that_tap_accepts(
    gaps: list[tuple[Window, tuple[int, int, datetime | None]]],
) -> None:
    state = State(VERSION)
    for window, (attempts, kills, tried) in gaps:
        reopen(state, window, NOW)
        for gap in state.gaps:
            if gap.window() == window:
                gap.attempts, gap.kills, gap.last_attempt_at = attempts, kills, tried
    asked = due_windows(state, NOW)
    assert all(MIN_WINDOW <= window.end - window.start <= MAX_WINDOW for window, _ in asked)
    for gap in state.gaps:
        of_it = [window for window, found in asked if found is gap]
        if not gap.due(NOW):
            assert not of_it
            continue
        assert of_it[0].start == gap.start
        assert gap.end <= of_it[-1].end < gap.end + MIN_WINDOW
        assert all(a.end == b.start for a, b in itertools.pairwise(of_it))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), max_size=6), st.integers(0, 60))
def test_exactly_what_is_over_the_edge_expires(gaps: list[tuple[int, int]], edge: int) -> None:
    state = State(VERSION)
    for start, length in gaps:
        reopen(state, Window(at(start), at(start + length)), NOW)
    before = set(open_ticks(state))
    now = next(
        NOW + RETENTION + s * TICK
        for s in range(-60, 90)
        if oldest_start(NOW + RETENTION + s * TICK) == at(edge)
    )
    expired = expire(state, now)
    after = set(open_ticks(state))
    assert after == {tick for tick in before if tick >= edge}
    expired_ticks = [tick for window in expired.windows for tick in ticks(window)]
    assert sorted(expired_ticks) == sorted(before - after)
    assert [Window(lost.start, lost.end) for lost in state.lost] == expired.windows


@given(
    st.dictionaries(
        st.text(max_size=4), st.tuples(st.timedeltas(timedelta(0), RETENTION * 2), st.booleans()), max_size=9
    )
)
def test_a_threat_expires_seven_days_after_it_was_seen_last(
    threats: dict[str, tuple[timedelta, bool]],
) -> None:
    state = State(VERSION, campaigns={"delivered": 1})
    for name, (age, covered) in threats.items():
        seen = NOW - age
        state.backlog[name] = Threat(
            priority=1,
            first_seen=NOW - RETENTION * 3,
            last_seen=seen,
            campaign="delivered" if covered else None,
        )
    gone = {name for name, (age, _) in threats.items() if age > RETENTION}
    expired = expire(state, NOW)
    assert set(state.backlog) == set(threats) - gone
    assert set(expired.threats) == {name for name in gone if not threats[name][1]}
    assert set(expired.covered) == {name for name in gone if threats[name][1]}


@given(
    st.dictionaries(st.text(max_size=4), st.tuples(st.integers(0, 3), st.integers(0, 99)), max_size=12),
    st.integers(0, 12),
)
def test_a_full_backlog_keeps_the_highest_priorities_seen_last(
    threats: dict[str, tuple[int, int]], most: int
) -> None:
    state = State(VERSION)
    for name, (priority, hours) in threats.items():
        state.backlog[name] = Threat(priority=priority, first_seen=NOW - hours * HOUR)
    surplus = drop_surplus(state, most)
    assert set(state.backlog) | set(surplus) == set(threats)
    assert len(state.backlog) == min(most, len(threats))
    assert all(threats[kept] <= threats[dropped] for kept in state.backlog for dropped in surplus)


@given(st.lists(windows, max_size=6), st.integers(0, TICKS))
def test_read_until_is_where_what_was_read_ends_and_all_read_until_where_it_first_does(
    gaps: list[Window], cursor: int
) -> None:
    state = State(VERSION, last_event_time=at(cursor))
    for gap in gaps:
        reopen(state, Window(gap.start, min(gap.end, at(cursor))), NOW) if gap.start < at(cursor) else None
    unread = set(open_ticks(state))
    until = next(tick for tick in range(cursor, -1, -1) if tick - 1 not in unread)
    assert read_until(state) == at(until)
    assert all_read_until(state) == at(min(unread, default=cursor))


@given(st.lists(st.lists(st.text(max_size=2), max_size=5), max_size=9), st.integers(0, 6))
def test_of_many_campaigns_the_newest_are_remembered(batches: list[list[str]], most: int) -> None:
    state, order = State(VERSION), list[str]()
    for hour, campaigns in enumerate(batches):
        mark_campaigns(state, campaigns, NOW + hour * HOUR, most)
        for campaign in campaigns:
            order = [known for known in order if known != campaign] + [campaign]
        order = order[len(order) - min(len(order), most) :]
    assert list(state.campaigns) == order
