from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_forensics.errors import StateUnreadable
from tap_forensics.ledger import FORENSICS, SIEM, Ledger, Pool
from tap_forensics.state import (
    VERSION,
    Gap,
    Lease,
    Lost,
    State,
    Threat,
    add_gap,
    close_gap,
    decode,
    encode,
    forget,
    new_lease,
    settle,
)
from tap_forensics.windows import Window, oldest_askable, plan_span

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

past = st.timedeltas(timedelta(0), timedelta(days=2000)).map(lambda ago: NOW - ago)
counts = st.integers(0, 2**53)
ids = st.text(max_size=20)
run_ids = past.map(lambda moment: moment.strftime("%Y%m%d_%H%M%S"))
states = st.builds(
    State,
    st.just(VERSION),
    last_event_time=st.none() | past,
    last_run_id=st.just("") | run_ids,
    lease=st.none() | st.builds(Lease, run_ids, ids, past, past, counts, st.lists(ids, max_size=3)),
    stalls=counts,
    gaps=st.lists(st.builds(Gap, past, past, past, counts), max_size=3),
    lost=st.lists(st.builds(Lost, past, past, st.text()), max_size=3),
    calls=st.dictionaries(
        st.sampled_from([SIEM, FORENSICS]),
        st.builds(Pool, st.dictionaries(st.integers(0, 10**9), counts, max_size=3), st.none() | past),
    ),
    backlog=st.dictionaries(
        ids, st.builds(Threat, st.integers(0, 9), past, st.none() | ids, counts, st.none() | past), max_size=3
    ),
    collected=st.dictionaries(ids, counts, max_size=3),
)

odd_times = st.sampled_from(
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00",
        "2026-03-04T10:00:00",
        "2026-03-04T10:00:00.123456+05:45",
        "2026-02-29T00:00:00Z",
        "99991231_235959",
        "20260304_100000",
    ]
)
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | odd_times
    | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def sound(now: datetime = NOW) -> dict[str, Any]:
    """A document that holds every field."""
    state = State(
        VERSION,
        last_event_time=now - HOUR,
        last_run_id="20260304_080000",
        lease=Lease("20260304_090000", "owner", now - HOUR, now - 2 * HOUR, 2, ["c1"]),
        stalls=1,
        gaps=[Gap(now - 9 * HOUR, now - 8 * HOUR, now - 7 * HOUR, 3)],
        lost=[Lost(now - 10 * HOUR, now - 9 * HOUR, "why")],
        calls={SIEM: Pool({int(now.timestamp()) // 600: 5}, now - HOUR), FORENSICS: Pool({1: 1}, now - HOUR)},
        backlog={"t1": Threat(1, now - HOUR, "c1", 2, now - HOUR)},
        collected={"t2": 1_772_618_400},
    )
    document: dict[str, Any] = json.loads(encode(state))
    return document


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, the whole included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, inner in items for place in places(inner, (*path, key))]


def with_replaced(path: tuple[Any, ...], new: Any) -> Any:
    document = sound()
    if not path:
        return new
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return document


def put_to_use(state: State) -> None:
    """What a run does with the state it finds, then the next one, by reading it and by writing it."""
    new_lease(msgspec.structs.replace(state, lease=None), NOW, 180)
    state.lease = new_lease(state, NOW, 180)
    new_lease(State(VERSION, last_run_id=state.lease.run_id), NOW, 180)
    forget(state, NOW, 24)
    plan_span(state.last_event_time, NOW, lookback=HOUR, overlap=HOUR, lag=SECOND)
    assert all(gap.end - max(gap.start, oldest_askable(NOW)) < 8 * DAY for gap in state.gaps)
    add_gap(state, Window(NOW - HOUR, NOW), NOW)
    sorted(threat.turn() for threat in state.backlog.values())
    ledger = Ledger(state.calls, {SIEM: None, FORENSICS: None})
    ledger.take(SIEM, NOW)
    ledger.standing(SIEM, NOW)
    ledger.standing(FORENSICS, NOW)
    state.calls = ledger.dump()
    decode(encode(state), "again", NOW)


def read_or_refused(data: bytes) -> State | None:
    try:
        return decode(data, "gs://demo-bucket/state.json", NOW)
    except StateUnreadable as error:
        assert "gs://demo-bucket/state.json" in str(error)
        assert "nothing was changed" in str(error)
        return None


@given(states)
def test_a_state_reads_back_as_it_was_written(state: State) -> None:
    assert decode(encode(state), "here", NOW) == state


@given(states)
def test_the_published_function_finds_its_time_at_the_top_of_our_document(state: State) -> None:
    document = json.loads(encode(state))
    found = document.get("last_event_time")
    assert (found and datetime.fromisoformat(found)) == state.last_event_time


@settings(max_examples=500)
@given(st.binary() | junk.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_state_is_unreadable_and_nothing_else(data: bytes) -> None:
    assert read_or_refused(data) is None


@settings(max_examples=500)
@given(junk)
def test_the_published_functions_object_with_any_time_is_usable_or_unreadable(value: Any) -> None:
    state = read_or_refused(json.dumps({"last_event_time": value}).encode())
    if state:
        put_to_use(state)


@pytest.mark.parametrize("path", places(sound()), ids=lambda path: ".".join(map(str, path)) or "all")
@settings(max_examples=80)
@given(new=odd_times | junk)
def test_a_document_with_one_wrong_value_is_usable_or_unreadable(path: tuple[Any, ...], new: Any) -> None:
    state = read_or_refused(json.dumps(with_replaced(path, new)).encode())
    if state:
        put_to_use(state)


@given(st.integers(0, 400), st.binary(max_size=8))
def test_a_spoilt_document_is_usable_or_unreadable(place: int, spoilt: bytes) -> None:
    whole = json.dumps(sound()).encode()
    state = read_or_refused(whole[:place] + spoilt + whole[place + len(spoilt) :])
    if state:
        put_to_use(state)


minutes = st.integers(0, 60)
changes = st.lists(
    st.tuples(st.booleans(), minutes, minutes).filter(lambda change: change[1] < change[2]), max_size=12
)


def at(minute: int) -> datetime:
    return NOW + timedelta(minutes=minute)


@given(changes)
def test_gaps_are_the_set_of_minutes_that_were_added_and_not_closed(
    changes: list[tuple[bool, int, int]],
) -> None:
    state, expected = State(VERSION), set[int]()
    for adds, start, end in changes:
        window = Window(at(start), at(end))
        if adds:
            add_gap(state, window, NOW)
            expected |= set(range(start, end))
        else:
            close_gap(state, window)
            expected -= set(range(start, end))
    found = [minute for minute in range(61) for gap in state.gaps if gap.start <= at(minute) < gap.end]
    assert found == sorted(expected)
    assert all(gap.start < gap.end for gap in state.gaps)
    assert state.gaps == sorted(state.gaps, key=lambda gap: gap.start)


@given(
    st.lists(st.tuples(minutes, minutes, minutes).filter(lambda gap: gap[0] < gap[1]), min_size=1, max_size=8)
)
def test_no_gap_forgets_since_when_it_is_open(gaps: list[tuple[int, int, int]]) -> None:
    state = State(VERSION)
    for start, end, since in gaps:
        add_gap(state, Window(at(start), at(end)), at(since))
    for start, end, since in gaps:
        (holding,) = [gap for gap in state.gaps if gap.start <= at(start) and at(end) <= gap.end]
        assert holding.since <= at(since)


@given(
    st.dictionaries(ids, st.integers(-300_000, 0), max_size=10),
    st.integers(0, 168),
    st.none() | st.integers(0, 30_000),
)
def test_what_was_collected_is_remembered_for_dedup_hours_and_through_its_own_run(
    ages: dict[str, int], dedup_hours: int, run_age: int | None
) -> None:
    state = State(VERSION)
    if run_age is not None:
        started = NOW - run_age * SECOND
        state.lease = Lease("20260304_090000", "owner", NOW, started)
    for threat, age in ages.items():
        settle(state, threat, NOW + age * SECOND)
    forget(state, NOW, dedup_hours)
    kept_for = max(dedup_hours * 3600, run_age or 0)
    assert set(state.collected) == {threat for threat, age in ages.items() if -age <= kept_for}


steps = st.integers(-5, 5) | st.sampled_from([-86_400, -3600, 0, 3600, 86_400])


@given(st.lists(st.tuples(steps, st.booleans()), max_size=30))
def test_whatever_the_clock_does_run_ids_increase_and_are_never_shared(runs: list[tuple[int, bool]]) -> None:
    state, now, seen = State(VERSION), NOW, list[str]()
    for step, dies in runs:
        now += step * SECOND
        dead = state.lease
        state.lease = new_lease(state, now, 180)
        assert state.lease.owner != (dead.owner if dead else "")
        if dead:
            assert (state.lease.run_id, state.lease.started) == (dead.run_id, dead.started)
        else:
            seen.append(state.lease.run_id)
        if not dies:
            state.last_run_id, state.lease = state.lease.run_id, None
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))
