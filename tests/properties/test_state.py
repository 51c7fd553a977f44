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
from tap_forensics.storage.open_items import (
    all_read_until,
    count_kills,
    drop_surplus,
    due_windows,
    expire,
    mark_collected,
    plan,
    prune,
    read_until,
)
from tap_forensics.storage.state import (
    VERSION,
    Gap,
    Lease,
    LostInterval,
    State,
    Threat,
    decode,
    encode,
    new_lease,
)
from tap_forensics.tap.quota import FORENSICS, SIEM, Pool, Quota
from tap_forensics.tap.windows import plan_range

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

past = st.timedeltas(timedelta(0), timedelta(days=2000)).map(lambda ago: NOW - ago)
counts = st.integers(0, 2**53)
ids = st.text(max_size=20)
run_ids = past.map(lambda moment: moment.strftime("%Y%m%d_%H%M%S"))
item = {"attempts": counts, "last_attempt_at": st.none() | past, "kills": counts}
leases = st.builds(
    Lease,
    run_id=run_ids,
    owner=ids,
    started=past,
    seconds=counts,
    asking=st.lists(ids, max_size=3),
    reading=st.lists(st.tuples(past, past), max_size=3),
    batches=counts,
    campaigns=st.lists(ids, max_size=3),
    event_batches=counts,
)
threats = st.builds(
    Threat,
    priority=st.integers(0, 9),
    first_seen=past,
    last_seen=past,
    campaign=st.none() | ids,
    **item,
)
states = st.builds(
    State,
    st.just(VERSION),
    last_event_time=st.none() | past,
    last_run_id=st.just("") | run_ids,
    last_owner=ids,
    lease=st.none() | leases,
    gaps=st.lists(st.builds(Gap, start=past, end=past, planned_at=past, **item), max_size=3),
    lost=st.lists(st.builds(LostInterval, past, past, st.text()), max_size=3),
    calls=st.dictionaries(
        st.sampled_from([SIEM, FORENSICS]),
        st.builds(Pool, st.dictionaries(st.integers(0, 10**9), counts, max_size=3), st.none() | past),
    ),
    backlog=st.dictionaries(ids, threats, max_size=3),
    collected=st.dictionaries(ids, counts, max_size=3),
    campaigns=st.dictionaries(ids, counts, max_size=3),
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
    failed: dict[str, Any] = {"attempts": 2, "last_attempt_at": now - HOUR, "kills": 1}
    state = State(
        VERSION,
        last_event_time=now - HOUR,
        last_run_id="20260304_080000",
        last_owner="former",
        lease=Lease(
            run_id="20260304_090000",
            owner="owner",
            started=now - 2 * HOUR,
            seconds=180,
            asking=["t1"],
            reading=[(now - 9 * HOUR, now - 8 * HOUR)],
            batches=2,
            campaigns=["c1"],
            event_batches=3,
        ),
        gaps=[Gap(start=now - 9 * HOUR, end=now - 8 * HOUR, planned_at=now - 7 * HOUR, **failed)],
        lost=[LostInterval(now - 10 * HOUR, now - 9 * HOUR, "why")],
        calls={SIEM: Pool({int(now.timestamp()) // 600: 5}, now - HOUR), FORENSICS: Pool({1: 1}, now - HOUR)},
        backlog={
            "t1": Threat(priority=1, first_seen=now - HOUR, last_seen=now - HOUR, campaign="c1", **failed)
        },
        collected={"t2": 1_772_618_400},
        campaigns={"c2": 1_772_618_400},
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
    expire(state, NOW)
    plan(state, plan_range(state.last_event_time, NOW, lookback=HOUR, overlap=HOUR, lag=SECOND), NOW)
    count_kills(state, state.lease, NOW)
    prune(state, NOW, 24)
    assert all(gap.end - gap.start < 8 * DAY for gap in state.gaps)
    assert len(due_windows(state, NOW)) < 1000
    read_until(state)
    all_read_until(state)
    sorted(threat.sort_key() for threat in state.backlog.values() if threat.due(NOW))
    drop_surplus(state, 1)
    quota = Quota(state.calls, {SIEM: None, FORENSICS: None})
    quota.reserve(SIEM, NOW)
    quota.status(SIEM, NOW)
    quota.status(FORENSICS, NOW)
    state.calls = quota.dump()
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
        state.lease = Lease("20260304_090000", "owner", started)
    for threat, age in ages.items():
        mark_collected(state, threat, NOW + age * SECOND)
    prune(state, NOW, dedup_hours)
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
