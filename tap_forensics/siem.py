"""One SIEM window → its threats. Each record is read on its own: a strange one costs only itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from tap_forensics.errors import Unavailable
from tap_forensics.ndjson import refuse_swarms, repaired, text_of
from tap_forensics.state import Threat
from tap_forensics.tap import Tap
from tap_forensics.windows import Window

# A click that went through comes first, then a mail that lies in a mailbox, then what was stopped.
_PRIORITIES = {"clicksPermitted": 0, "messagesDelivered": 1, "messagesBlocked": 2, "clicksBlocked": 2}
_LONGEST_ID = 256

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
    """What a window held: how many events, how many entries passed over, the threats by id."""

    events: int = 0
    odd: int = 0
    threats: dict[str, Threat] = field(default_factory=dict)


def read_window(tap: Tap, window: Window, now: datetime) -> Reading:
    """Asks for one window. Raises as `Tap.siem`; an unreadable body is `Unavailable`."""
    answer = tap.siem(window)
    try:
        return Reading() if answer.status == 204 else _reading(repaired(refuse_swarms(answer.body)), now)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("the answer is not the JSON that TAP documents") from None
    finally:
        answer.release()


def _reading(body: bytes, now: datetime) -> Reading:
    reading = Reading()
    lists = _top.decode(body)
    for name, priority in _PRIORITIES.items():
        records = _list.decode(lists[name]) if name in lists else None
        for record in records or ():
            reading.events += 1
            for entry in _entries(name, record, reading):
                _take(entry, priority, now, reading)
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
