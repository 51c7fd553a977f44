"""The planner's rules, for any backlog and any limits: a run is played with answers that always come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.forensics.planner import Step, Waiting, next_step
from tap_forensics.storage.state import OpenItem, Threat
from tap_forensics.tap.quota import CAMPAIGN_FORENSICS, FORENSICS_POOLS

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
MODES = ("auto", "on", "off")

threats = st.builds(
    lambda priority, ago, campaign, attempts: Threat(
        priority=priority,
        first_seen=NOW - timedelta(hours=ago),
        last_seen=NOW - timedelta(hours=ago),
        campaign=campaign,
        attempts=attempts,
    ),
    st.integers(0, 2),
    st.integers(0, 5),
    st.none() | st.sampled_from("cdefg"),
    st.sampled_from([0, 0, 0, 1]),
)
backlogs = st.dictionaries(st.integers(0, 99).map(str), threats, max_size=30)
lefts = st.fixed_dictionaries({pool: st.none() | st.integers(0, 12) for pool in FORENSICS_POOLS})


def played(backlog: dict[str, Threat], left: dict[str, int | None], mode: str) -> list[Step]:
    """All steps of a run in which every call is answered."""
    named = {threat.campaign for threat in backlog.values() if threat.campaign}
    waiting = Waiting(dict(backlog), {campaign: OpenItem() for campaign in named}, named, dict(left))
    steps = []
    while step := next_step(waiting, mode):
        steps.append(step)
        for request in step.requests:
            if request.campaign:
                del waiting.campaigns[request.campaign]
                waiting.uncovered.discard(request.campaign)
            else:
                del waiting.threats[request.threat_id]
        before = waiting.left[step.pool]
        waiting.left = {
            **waiting.left,
            step.pool: None if before is None else before - len(step.requests),
        }
    return steps


@given(backlogs, lefts, st.sampled_from(MODES))
def test_no_type_is_ever_called_more_often_than_it_has_calls_left(
    backlog: dict[str, Threat], left: dict[str, int | None], mode: str
) -> None:
    steps = played(backlog, left, mode)
    for pool, limit in left.items():
        made = sum(len(step.requests) for step in steps if step.pool == pool)
        assert limit is None or made <= limit


@given(backlogs, lefts, st.sampled_from(MODES))
def test_nothing_is_requested_twice(
    backlog: dict[str, Threat], left: dict[str, int | None], mode: str
) -> None:
    names = [request.name for step in played(backlog, left, mode) for request in step.requests]
    assert len(names) == len(set(names))


@given(backlogs, lefts)
def test_no_campaign_stays_uncovered_while_calls_by_campaign_are_left(
    backlog: dict[str, Threat], left: dict[str, int | None]
) -> None:
    steps = played(backlog, left, "on")
    asked = [request.campaign for step in steps for request in step.requests if request.campaign]
    named = {threat.campaign for threat in backlog.values() if threat.campaign}
    limit = left[CAMPAIGN_FORENSICS]
    assert len(asked) == min(len(named), len(named) if limit is None else limit)
    # Before any threat's own call.
    assert not any(step.pool == CAMPAIGN_FORENSICS for step in steps[1:])


@given(backlogs, lefts)
def test_no_threat_waits_while_calls_by_threat_are_left(
    backlog: dict[str, Threat], left: dict[str, int | None]
) -> None:
    steps = played(backlog, left, "on")
    own = sum(not request.campaign for step in steps for request in step.requests)
    limits = [left[pool] for pool in FORENSICS_POOLS if pool != CAMPAIGN_FORENSICS]
    possible = len(backlog) if None in limits else sum(filter(None, limits))
    assert own == min(len(backlog), possible)


@given(backlogs)
def test_without_limits_the_default_is_one_call_a_threat_and_no_other(backlog: dict[str, Threat]) -> None:
    steps = played(backlog, dict.fromkeys(FORENSICS_POOLS), "auto")
    assert sum(len(step.requests) for step in steps) == len(backlog)
    assert not any(request.campaign for step in steps for request in step.requests)


@given(backlogs, st.integers(0, 12))
def test_of_the_members_the_most_urgent_ones_get_the_calls(backlog: dict[str, Threat], left: int) -> None:
    requests = [
        request
        for step in played(backlog, dict.fromkeys(FORENSICS_POOLS, left), "on")
        for request in step.requests
    ]
    covered = {request.campaign for request in requests if request.campaign}
    named = {request.threat_id for request in requests if not request.campaign}
    for is_covered in (False, True):
        members = {
            name: (threat.priority, NOW - threat.first_seen)
            for name, threat in backlog.items()
            if threat.campaign and not threat.attempts and (threat.campaign in covered) == is_covered
        }
        with_call = [urgency for name, urgency in members.items() if name in named]
        without = [urgency for name, urgency in members.items() if name not in named]
        assert max(with_call, default=(0, timedelta())) <= min(without, default=(9, timedelta()))
