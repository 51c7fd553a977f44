"""An event is known again however TAP renders it, and is never taken for another."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tap_forensics.records.event_lines import (
    Event,
    Fingerprint,
    envelope,
    fingerprint,
    line_of,
    read_line,
    read_record,
    to_event,
)

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


def rendered(event: dict[str, Any], *, escaped: bool = False) -> bytes:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=escaped).encode()


def known_by(kind: str, record: bytes) -> Fingerprint:
    return fingerprint(kind, read_record(record))


def shuffled(event: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The same event otherwise told: lists and fields in another order, fields in the other spelling."""
    copied = copy.deepcopy(event)
    for key in ("recipient", "modulesRun", "messageParts", "threatsInfoMap"):
        if isinstance(copied.get(key), list):
            rng.shuffle(copied[key])
    entries = [e for e in copied.get("threatsInfoMap") or [] if isinstance(e, dict)]
    if isinstance(copied.get("threatsInfoMap"), list):
        copied["threatsInfoMap"] = [
            respelled(e, rng) if any(e is x for x in entries) else e for e in copied["threatsInfoMap"]
        ]
    return respelled(copied, rng)


def respelled(fields: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    pairs = [(OTHER_SPELLING.get(k, k) if rng.random() < 0.5 else k, value) for k, value in fields.items()]
    rng.shuffle(pairs)
    return dict(pairs)


def plainly(kind: str, event: dict[str, Any]) -> str:
    """The slow and obvious way: for the events of this page only, whose texts are all that matters."""
    changing = {"threatStatus", "threatTime", "campaignID", "campaignId"}
    spellings = {"threatId": "threatID", "clusterId": "cluster", "threatUrl": "threatURL"}

    def told(value: Any, depth: int = 0) -> Any:
        if isinstance(value, dict):
            entry = kind.startswith("clicks") == (depth == 0)
            dropped = changing if entry else set()
            return {spellings.get(k, k): told(v, depth + 1) for k, v in value.items() if k not in dropped}
        if isinstance(value, list) and depth == 1:
            return sorted(json.dumps(told(item, depth + 1), sort_keys=True) for item in value)
        return value

    return json.dumps([kind, told(event)], sort_keys=True)


def verdicts(event: dict[str, Any]) -> list[Any]:
    """Where TAP speaks of a threat's status: in a click itself, in each entry of a message's map."""
    return [event] if "url" in event else event.get("threatsInfoMap") or []


def judged(event: dict[str, Any]) -> dict[str, Any]:
    """The event after TAP thought again of every threat in it."""
    copied = copy.deepcopy(event)
    for entry in verdicts(copied):
        if isinstance(entry, dict):
            entry["threatStatus"], entry["threatTime"] = "falsePositive", "later"
    return copied


@given(EVENTS, st.randoms(use_true_random=False), st.booleans())
def test_another_order_and_spelling_is_the_same_event(
    told: tuple[str, dict[str, Any]], rng: random.Random, escaped: bool
) -> None:
    kind, event = told
    other = rendered(shuffled(event, rng), escaped=escaped)
    assert known_by(kind, other) == known_by(kind, rendered(event))


@given(EVENTS, st.data())
def test_a_changed_field_is_another_event(told: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    kind, event = told
    changing = {"threatStatus", "threatTime", "campaignID", "campaignId"}
    key = data.draw(st.sampled_from(sorted(set(event) - changing)))
    value = data.draw(st.integers(10**7, 10**8))
    mutated = {**event, key: value}
    assert known_by(kind, rendered(mutated)).key != known_by(kind, rendered(event)).key


@given(EVENTS, EVENTS)
def test_two_events_that_are_told_differently_are_two(
    one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]
) -> None:
    """What is left of each once its order, its spelling and what TAP changes later are put aside."""
    same = plainly(*one) == plainly(*other)
    assert same == (known_by(one[0], rendered(one[1])).key == known_by(other[0], rendered(other[1])).key)


@given(st.sampled_from([b"1e999", b"-1e999", b"9" * 5000, b"1.0", b"1.00", b"1", b"-0"]))
def test_a_number_of_any_size_is_known_by_its_digits(number: bytes) -> None:
    def told(digits: bytes) -> Fingerprint:
        record = b'{"id":"x","threatsInfoMap":[{"threatID":"t","n":[' + digits + b"]}]}"
        return known_by("messagesDelivered", record)

    assert told(number) == told(number)
    assert told(number).key != told(b"1" + number.removeprefix(b"-")).key


@pytest.mark.slow
def test_an_event_nested_to_the_limit_is_known_all_the_same() -> None:
    def nested(levels: int) -> bytes:
        return b'{"id":"x","a":' + b"[" * levels + b"]" * levels + b"}"

    def taken(record: bytes, fields: dict[str, Any], calls: int) -> Event:
        """As many calls further down, where less may be nested."""
        return taken(record, fields, calls - 1) if calls else to_event("messagesDelivered", record, fields)

    deepest = max(levels for levels in range(1, 5000) if "a" in read_record(nested(levels)))
    record = nested(deepest)
    assert taken(record, read_record(record), calls=20).record == record
    assert taken(nested(5000), read_record(nested(5000)), calls=20).record == nested(5000)


@given(EVENTS, st.randoms(use_true_random=False))
def test_a_new_verdict_is_another_version_of_the_same_event(
    told: tuple[str, dict[str, Any]], rng: random.Random
) -> None:
    kind, event = told
    later = judged(event)
    assume(any(isinstance(entry, dict) for entry in verdicts(event)))
    before, after = known_by(kind, rendered(event)), known_by(kind, rendered(shuffled(later, rng)))
    assert before.key == after.key
    assert before.version != after.version


@given(EVENTS, st.sampled_from(["api", "flat"]), st.booleans())
def test_a_line_gives_its_event_back(told: tuple[str, dict[str, Any]], shape: str, update: bool) -> None:
    kind, event = told
    line = line_of(rendered(event), envelope(kind, shape), update=update)
    assert read_line(line) == (kind, rendered(event))
    assert b"\n" not in line
    document = json.loads(line)
    record = document[kind][0] if shape == "api" else document
    flat = {"eventType": kind} if shape == "flat" else {}
    assert record == {**event, **flat, "_eventType": kind, **({"_update": True} if update else {})}
