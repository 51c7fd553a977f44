"""One SIEM window → events and threats. Each record is read on its own: a strange one costs only itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from tap_forensics.errors import TooLarge, Unavailable
from tap_forensics.events import is_suspicious
from tap_forensics.ndjson import Swarm, refuse_swarms, repaired, text_of
from tap_forensics.state import Threat
from tap_forensics.tap import Tap
from tap_forensics.windows import Window

# A click that went through comes first, then a mail that lies in a mailbox, then what was stopped.
_PRIORITIES = {"clicksPermitted": 0, "messagesDelivered": 1, "messagesBlocked": 2, "clicksBlocked": 2}
_LONGEST_ID = 256
# Where JSON is not compact: line ends anywhere (no text holds one), and spaces as its start has them.
_LINE_ENDS = (b"\n", b"\r", b"\t")
_SPACES = (b'": ', b', "')
_START = 4096

_list = msgspec.json.Decoder(list[msgspec.Raw] | None)
_top = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Named(msgspec.Struct):
    """Where a threat is named. Both spellings: documented, and seen on live tenants. Types are checked later,
    so that one wrong field does not hide the others.
    """

    threatID: msgspec.Raw = msgspec.Raw()  # noqa: N815 - TAP's own spelling
    threatId: msgspec.Raw = msgspec.Raw()  # noqa: N815 - TAP's own spelling
    campaignID: msgspec.Raw = msgspec.Raw()  # noqa: N815 - TAP's own spelling
    campaignId: msgspec.Raw = msgspec.Raw()  # noqa: N815 - TAP's own spelling


class _Message(msgspec.Struct):
    threatsInfoMap: list[msgspec.Raw] | None = None  # noqa: N815 - TAP's own spelling


_named = msgspec.json.Decoder(_Named)
_message = msgspec.json.Decoder(_Message)


@dataclass
class Reading:
    """What a window held: how many events, how many entries passed over, the threats by id.

    `records`: the events themselves, kind by kind, each compact JSON. They hold on to the whole answer.
    """

    events: int = 0
    odd: int = 0
    threats: dict[str, Threat] = field(default_factory=dict)
    records: list[tuple[str, list[msgspec.Raw]]] = field(default_factory=list, repr=False, compare=False)
    suspicious: bool = False


def read_window(tap: Tap, window: Window, now: datetime, *, threats: bool = True) -> Reading:
    """Asks for one window. Raises as `Tap.siem`; an unreadable body is `Unavailable`."""
    answer = tap.siem(window)
    try:
        return Reading() if answer.status == 204 else _reading(_compact(answer.body), now, threats)
    except Swarm:
        raise TooLarge("the answer holds more values than memory does") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("the answer is not the JSON that TAP documents") from None
    finally:
        answer.release()


def _compact(body: bytes) -> bytes:
    """Sound UTF-8 without white space between values; what is that already comes back as it is."""
    body = repaired(refuse_swarms(body))
    spaced = any(mark in body for mark in _LINE_ENDS) or any(mark in body[:_START] for mark in _SPACES)
    return msgspec.json.format(body, indent=-1) if spaced else body


def _reading(body: bytes, now: datetime, threats: bool) -> Reading:
    lists = _top.decode(body)
    records = [(name, _list.decode(lists[name]) or []) for name in _PRIORITIES if name in lists]
    reading = Reading(sum(len(found) for _, found in records), records=records)
    reading.suspicious = is_suspicious(body)
    for name, found in records if threats else ():
        for record in found:
            for entry in _entries(name, record, reading):
                _take(entry, _PRIORITIES[name], now, reading)
    return reading


def _entries(name: str, record: msgspec.Raw, reading: Reading) -> Iterator[msgspec.Raw]:
    """A click names its threat itself, a message in a list of its own."""
    if name.startswith("clicks"):
        yield record
        return
    try:
        yield from _message.decode(record).threatsInfoMap or ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        reading.odd += 1


def _take(entry: msgspec.Raw, priority: int, now: datetime, reading: Reading) -> None:
    try:
        named = _named.decode(entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        reading.odd += 1
        return
    threat_id = _text(named.threatID) or _text(named.threatId)
    if threat_id is None:
        reading.odd += 1
        return
    campaign = _text(named.campaignID) or _text(named.campaignId)
    known = reading.threats.get(threat_id)
    if known is None:
        reading.threats[threat_id] = Threat(priority, now, campaign)
        return
    known.priority = min(known.priority, priority)
    known.campaign = known.campaign or campaign


def _text(raw: msgspec.Raw) -> str | None:
    text = text_of(raw)
    return text if text and len(text) <= _LONGEST_ID else None
