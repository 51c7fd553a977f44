"""What becomes of the open items of a state."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tap_forensics.storage.open_items import (
    add_threat,
    close,
    count_kills,
    drop_surplus,
    drop_surplus_summaries,
    due_windows,
    expire,
    fail,
    lose,
    mark_campaigns,
    mark_collected,
    plan,
    prune,
    reopen,
)
from tap_forensics.storage.state import VERSION, Gap, Lease, LostInterval, State, Summary, Threat
from tap_forensics.tap.windows import EDGE_MARGIN, RETENTION, ReadRange, Window
from tests.support.clocks import NOW

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
EDGE = NOW - RETENTION + EDGE_MARGIN


def window(start: float, end: float) -> Window:
    """In hours before NOW."""
    return Window(NOW - start * HOUR, NOW - end * HOUR)


def opened(*windows: Window, **fields: Any) -> State:
    """A state with these gaps."""
    return State(VERSION, gaps=[Gap(start=w.start, end=w.end, planned_at=NOW, **fields) for w in windows])


def windows(state: State) -> list[Window]:
    return [gap.window() for gap in state.gaps]


def threat(priority: int, first_seen: Any = NOW, **fields: Any) -> Threat:
    return Threat(priority=priority, first_seen=first_seen, **fields)


def test_a_plan_opens_the_span_and_moves_the_cursor_to_its_end() -> None:
    state = State(VERSION)
    plan(state, ReadRange(window(3, 0), None), NOW)
    assert windows(state) == [window(3, 0)]
    assert (state.last_event_time, state.gaps[0].planned_at) == (NOW, NOW)


def test_a_plan_keeps_what_is_known_of_windows_that_are_open() -> None:
    state = opened(window(3, 2), attempts=4, last_attempt_at=NOW)
    plan(state, ReadRange(window(4, 0), None), NOW)
    assert [(gap.window(), gap.attempts) for gap in state.gaps] == [
        (window(4, 3), 0),
        (window(3, 2), 4),
        (window(2, 0), 0),
    ]


def test_untried_neighbours_become_one_window() -> None:
    state = opened(window(3, 2), window(1, 0.5))
    plan(state, ReadRange(window(2, 0), None), NOW)
    assert windows(state) == [window(3, 0)]


def test_a_plan_for_less_than_thirty_seconds_waits_for_the_next_run() -> None:
    state = State(VERSION, last_event_time=NOW - 29 * SECOND)
    plan(state, ReadRange(Window(NOW - 29 * SECOND, NOW), None), NOW)
    assert (state.gaps, state.last_event_time) == ([], NOW - 29 * SECOND)


@pytest.mark.parametrize("seconds", [0, 3600])
def test_what_a_clock_ahead_had_planned_is_planned_anew(seconds: int) -> None:
    ahead = NOW + HOUR
    state = opened(Window(NOW - HOUR, ahead), attempts=3)
    state.last_event_time = ahead
    plan(state, ReadRange(Window(NOW - seconds * SECOND, NOW), None), NOW)
    assert windows(state) == [window(1, 0)]
    assert state.last_event_time == NOW


def test_what_a_plan_can_no_longer_ask_for_is_recorded_as_lost() -> None:
    state = State(VERSION, last_event_time=EDGE - HOUR)
    plan(state, ReadRange(Window(EDGE, NOW), Window(EDGE - HOUR, EDGE)), NOW)
    assert [(lost.start, lost.end) for lost in state.lost] == [(EDGE - HOUR, EDGE)]


def test_what_lies_before_a_first_run_is_not_lost() -> None:
    state = State(VERSION)
    plan(state, ReadRange(Window(EDGE, NOW), Window(EDGE - HOUR, EDGE)), NOW)
    assert state.lost == []


def test_of_a_long_gap_only_what_was_asked_for_counts_an_attempt() -> None:
    state = opened(window(6, 1))
    fail(state, window(4, 3), NOW)
    fail(state, window(4, 3), NOW)
    assert [(gap.window(), gap.attempts) for gap in state.gaps] == [
        (window(6, 4), 0),
        (window(4, 3), 2),
        (window(3, 1), 0),
    ]


def test_closing_the_middle_of_a_gap_leaves_both_ends_with_its_history() -> None:
    state = opened(window(4, 0), attempts=2)
    close(state, window(3, 1))
    assert [(gap.window(), gap.attempts) for gap in state.gaps] == [(window(4, 3), 2), (window(1, 0), 2)]


def test_what_is_opened_again_is_due_at_once_whatever_was_tried_before() -> None:
    state = opened(window(6, 2), attempts=9, last_attempt_at=NOW)
    reopen(state, window(5, 4), NOW)
    assert [(gap.window(), gap.due(NOW)) for gap in state.gaps] == [
        (window(6, 5), False),
        (window(5, 4), True),
        (window(4, 2), False),
    ]


def test_windows_are_asked_for_with_the_gap_they_lie_in() -> None:
    state = opened(window(9, 7.5), Window(NOW - HOUR, NOW - HOUR + SECOND))
    state.gaps += opened(window(6, 5), attempts=1).gaps + opened(window(4, 3), kills=1).gaps
    state.gaps += opened(window(3, 2), attempts=3, last_attempt_at=NOW).gaps
    asked = [(w, gap.window()) for w, gap in due_windows(state, NOW)]
    short = Window(NOW - HOUR, NOW - HOUR + SECOND)
    assert asked == [
        (window(4, 3), window(4, 3)),
        (window(9, 8.25), window(9, 7.5)),
        (window(8.25, 7.5), window(9, 7.5)),
        (Window(short.start, short.start + 30 * SECOND), short),
        (window(6, 5), window(6, 5)),
    ]


def test_the_latest_fifty_lost_intervals_are_kept() -> None:
    state = State(VERSION)
    for number in range(60):
        lose(state, window(2, 1), str(number))
    assert [lost.why for lost in state.lost] == [str(number) for number in range(10, 60)]
    assert state.lost[0] == LostInterval(NOW - 2 * HOUR, NOW - HOUR, "10")


def test_what_tap_no_longer_keeps_expires_and_is_told() -> None:
    state = opened(Window(EDGE - HOUR, EDGE + HOUR), Window(EDGE + HOUR, NOW))
    week = RETENTION + SECOND
    state.campaigns = {"delivered": 1}
    state.backlog = {
        "gone": threat(1, NOW - week, last_seen=NOW - week),
        "covered": threat(1, NOW - week, last_seen=NOW - week, campaign="delivered"),
        "seen again": threat(1, NOW - week, last_seen=NOW - RETENTION),
        "campaign not delivered": threat(1, NOW - week, campaign="other"),
    }
    expired = expire(state, NOW)
    assert expired.windows == [Window(EDGE - HOUR, EDGE)]
    assert set(expired.threats) == {"gone", "campaign not delivered"}
    assert set(expired.covered) == {"covered"}
    assert windows(state) == [Window(EDGE, EDGE + HOUR), Window(EDGE + HOUR, NOW)]
    assert set(state.backlog) == {"seen again"}
    assert [(lost.start, lost.end) for lost in state.lost] == [(EDGE - HOUR, EDGE)]


def test_a_backlog_over_its_limit_gives_up_the_lowest_priority_seen_first() -> None:
    state = State(VERSION)
    state.backlog = {
        "click": threat(0, NOW - 9 * HOUR),
        "old": threat(2, NOW - 9 * HOUR, last_seen=NOW - 2 * HOUR),
        "new": threat(2, NOW - 9 * HOUR, last_seen=NOW),
    }
    assert drop_surplus(state, 3) == {}
    assert set(drop_surplus(state, 2)) == {"old"}
    assert set(drop_surplus(state, 1)) == {"new"}
    assert set(state.backlog) == {"click"}


def test_of_too_many_open_summaries_those_seen_first_are_given_up_by_name() -> None:
    summaries = {name: Summary(last_seen=NOW - timedelta(hours=age)) for age, name in enumerate("abc")}
    state = State(VERSION, summaries=summaries)
    assert drop_surplus_summaries(state, 3) == []
    assert drop_surplus_summaries(state, 1) == ["c", "b"]
    assert set(state.summaries) == {"a"}


def test_what_a_dead_run_had_in_flight_is_suspect_if_it_is_still_open() -> None:
    state = opened(window(6, 1))
    state.backlog = {"asked": threat(1), "asked twice": threat(1, kills=1), "not asked": threat(1)}
    dead = Lease("20260304_090000", "dead", NOW, asking=["asked", "asked twice", "delivered"])
    dead.reading = [(NOW - 7 * HOUR, NOW - 5 * HOUR), (NOW - 3 * HOUR, NOW - 2 * HOUR)]
    assert count_kills(state, dead, NOW) == ["asked twice"]
    assert {name: item.kills for name, item in state.backlog.items()} == {
        "asked": 1,
        "asked twice": 2,
        "not asked": 0,
    }
    assert [(gap.window(), gap.kills) for gap in state.gaps] == [
        (window(6, 5), 1),
        (window(5, 3), 0),
        (window(3, 2), 1),
        (window(2, 1), 0),
    ]
    dead.asking = []
    assert count_kills(state, dead, NOW) == [str(window(6, 5)), str(window(3, 2))]


def test_a_threat_seen_again_keeps_its_place_and_takes_the_better_priority_and_the_campaign() -> None:
    state = State(VERSION)
    assert add_threat(state, "t", threat(2, NOW - HOUR, last_seen=NOW - HOUR, attempts=1))
    assert not add_threat(state, "t", threat(0, NOW, last_seen=NOW, campaign="c1"))
    assert not add_threat(state, "t", threat(1, NOW, last_seen=NOW - HOUR, campaign="c2"))
    assert state.backlog == {"t": threat(0, NOW - HOUR, last_seen=NOW, campaign="c1", attempts=1)}


def test_a_collected_threat_does_not_come_back() -> None:
    state = State(VERSION)
    add_threat(state, "t", threat(1))
    mark_collected(state, "t", NOW)
    assert not add_threat(state, "t", threat(0))
    assert (state.backlog, state.collected) == ({}, {"t": int(NOW.timestamp())})


def test_with_dedup_off_only_this_runs_threats_are_remembered() -> None:
    state = State(VERSION, lease=Lease("20260304_090000", "o", NOW - HOUR))
    mark_collected(state, "earlier run", NOW - HOUR - SECOND)
    mark_collected(state, "this run", NOW - HOUR)
    prune(state, NOW, 0)
    assert set(state.collected) == {"this run"}


def test_campaigns_are_remembered_for_seven_days_and_the_newest_if_there_are_many() -> None:
    state = State(VERSION)
    mark_campaigns(state, ["old"], NOW - RETENTION - SECOND)
    mark_campaigns(state, ["edge"], NOW - RETENTION)
    prune(state, NOW, 24)
    assert set(state.campaigns) == {"edge"}
    mark_campaigns(state, ["a", "b", "edge", "c"], NOW, most=2)
    assert list(state.campaigns) == ["edge", "c"]
    assert set(state.campaigns.values()) == {int(NOW.timestamp())}
