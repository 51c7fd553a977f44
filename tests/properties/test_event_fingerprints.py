"""An event is known again however TAP renders it, and is never taken for another."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from tap_forensics.events import exact_fingerprint, fingerprint, line_of, read_line, tails

TEXTS = st.text(max_size=12) | st.sampled_from(['a",', "}]", "},{", '["', "x\\", '","', "ü☕", "null"])
SCALARS = TEXTS | st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(0, 100)
LISTS = st.none() | st.lists(TEXTS, max_size=4)
PART = st.fixed_dictionaries({"filename": TEXTS, "md5": st.none() | TEXTS, "sandboxStatus": SCALARS})
ENTRY = st.fixed_dictionaries(
    {"classification": TEXTS, "threat": TEXTS},
    optional={
        "threatID": TEXTS,
        "campaignID": st.none() | TEXTS,
        "threatStatus": st.none() | st.sampled_from(["active", "cleared"]),
        "threatTime": TEXTS,
        "threatUrl": TEXTS,
        "actors": st.lists(st.fixed_dictionaries({"name": TEXTS}), max_size=2),
        "unheardOf": SCALARS,
    },
)
JUNK = st.sampled_from([17, None, "text", {}, {"threatID": 42}])
MESSAGE = st.fixed_dictionaries(
    {"GUID": TEXTS, "subject": TEXTS},
    optional={
        "id": TEXTS,
        "cluster": TEXTS,
        "recipient": LISTS,
        "modulesRun": LISTS,
        "messageParts": st.none() | st.lists(PART, max_size=4),
        "threatsInfoMap": st.none() | st.lists(ENTRY, max_size=3) | st.lists(ENTRY | JUNK, max_size=3),
        "unheardOf": SCALARS | st.dictionaries(st.sampled_from("abc"), SCALARS, max_size=2),
    },
)
CLICK = st.fixed_dictionaries(
    {"GUID": TEXTS, "recipient": TEXTS, "url": TEXTS},
    optional={
        "threatID": TEXTS,
        "campaignId": st.none() | TEXTS,
        "threatStatus": st.sampled_from(["active", "cleared"]),
        "threatTime": TEXTS,
        "threatURL": TEXTS,
    },
)
EVENTS = st.tuples(st.just("messagesDelivered"), MESSAGE) | st.tuples(st.just("clicksPermitted"), CLICK)
OTHER_SPELLING = {
    "threatID": "threatId",
    "campaignID": "campaignId",
    "campaignId": "campaignID",
    "cluster": "clusterId",
    "threatUrl": "threatURL",
    "threatURL": "threatUrl",
}


def rendered(event: dict[str, Any]) -> bytes:
    """Keys in one order, as one serializer writes them."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()


def shuffled(event: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Another rendering of the same event: lists in another order, fields in the other spelling."""
    told = copy.deepcopy(event)
    for key in ("recipient", "modulesRun", "messageParts", "threatsInfoMap"):
        if isinstance(told.get(key), list):
            rng.shuffle(told[key])
    entries = [e for e in told.get("threatsInfoMap") or [] if isinstance(e, dict)]
    if isinstance(told.get("threatsInfoMap"), list):
        told["threatsInfoMap"] = [
            respelled(e, rng) if any(e is x for x in entries) else e for e in told["threatsInfoMap"]
        ]
    return respelled(told, rng)


def respelled(fields: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    return {OTHER_SPELLING.get(k, k) if rng.random() < 0.5 else k: value for k, value in fields.items()}


def verdicts(event: dict[str, Any]) -> list[Any]:
    """Where TAP speaks of a threat's status: in a click itself, in each entry of a message's map."""
    return [event] if "url" in event else event.get("threatsInfoMap") or []


def judged(event: dict[str, Any]) -> dict[str, Any]:
    """The event after TAP thought again of every threat in it."""
    told = copy.deepcopy(event)
    for entry in verdicts(told):
        if isinstance(entry, dict):
            entry["threatStatus"], entry["threatTime"] = "falsePositive", "later"
    return told


@given(EVENTS, st.randoms(use_true_random=False))
def test_another_order_and_spelling_is_the_same_event(
    told: tuple[str, dict[str, Any]], rng: random.Random
) -> None:
    kind, event = told
    other = shuffled(event, rng)
    assert fingerprint(kind, rendered(other)) == fingerprint(kind, rendered(event))
    assert exact_fingerprint(kind, rendered(other)) == exact_fingerprint(kind, rendered(event))


@given(EVENTS, EVENTS)
def test_the_quick_fingerprint_tells_apart_what_the_exact_one_does(
    one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]
) -> None:
    exact = [exact_fingerprint(kind, rendered(event)) for kind, event in (one, other)]
    quick = [fingerprint(kind, rendered(event)) for kind, event in (one, other)]
    assert (exact[0].key == exact[1].key) == (quick[0].key == quick[1].key)


@given(EVENTS, st.data())
def test_a_changed_field_is_another_event(told: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    kind, event = told
    changing = {"threatStatus", "threatTime", "campaignID", "campaignId"}
    key = data.draw(st.sampled_from(sorted(set(event) - changing)))
    value = data.draw(st.integers(10**7, 10**8))
    mutated = {**event, key: value}
    assert fingerprint(kind, rendered(mutated)).key != fingerprint(kind, rendered(event)).key
    assert exact_fingerprint(kind, rendered(mutated)).key != exact_fingerprint(kind, rendered(event)).key


@given(EVENTS, st.randoms(use_true_random=False))
def test_a_new_verdict_is_another_version_of_the_same_event(
    told: tuple[str, dict[str, Any]], rng: random.Random
) -> None:
    kind, event = told
    later = judged(event)
    assume(any(isinstance(entry, dict) for entry in verdicts(event)))
    for fingerprint_of in (fingerprint, exact_fingerprint):
        before = fingerprint_of(kind, rendered(event))
        after = fingerprint_of(kind, rendered(shuffled(later, rng)))
        assert before.key == after.key
        assert before.version != after.version


@given(EVENTS, st.sampled_from(["api", "flat"]), st.booleans())
def test_a_line_gives_its_event_back(told: tuple[str, dict[str, Any]], shape: str, update: bool) -> None:
    kind, event = told
    line = line_of(rendered(event), tails(kind, shape), update=update)
    assert read_line(line) == (kind, rendered(event))
    assert b"\n" not in line
    document = json.loads(line)
    record = document[kind][0] if shape == "api" else document
    ours = {"_eventType": kind, **({"_update": True} if update else {})}
    assert record == {**event, **ours}
