"""Which part of a SOURCE is wanted: a time, a tenant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tap_forensics.report import fields
from tap_forensics.report.records import EventLine, Record, Report, Tally
from tap_forensics.report.summaries import Summary
from tap_forensics.storage.state import RUN_ID_FORMAT

_RUN_ID = re.compile(r"_(\d{8}_\d{6})(?:_\d{4,})?\.(?:ndjson|jsonl)(?:\.gz)?$", re.ASCII)
_EVIDENCE = "tap_forensics_"
# A run that takes over from a dead one keeps the old ID, so an object may be younger than its name.
_LONGEST_RUN = timedelta(days=2)
# TAP's clock and that of a run may differ.
_CLOCK_MARGIN = timedelta(hours=1)


@dataclass(frozen=True)
class Selection:
    """`since` ≤ time < `until`; a report's time is when TAP made it. `tenant`: the folder of an object."""

    since: datetime | None = None
    until: datetime | None = None
    tenant: str | None = None

    def wants_object(self, name: str) -> bool:
        """False only if no line of the object can be wanted, by its name."""
        *folders, file = name.split("/")
        if self.tenant is not None and folders[-1:] != [self.tenant]:
            return False
        begun = _begun(file)
        if begun is None:
            return True
        if self.since and begun + _LONGEST_RUN < self.since:
            return False
        # An event is older than the run that reads it; a report is not.
        return not (self.until and file.startswith(_EVIDENCE) and begun - _CLOCK_MARGIN >= self.until)

    def select(self, records: Iterable[Record], tally: Tally) -> Iterator[Record]:
        """The records of that time, and every summary. `tally` counts those that have no time."""
        for record in records:
            if isinstance(record, Summary) or not (self.since or self.until):
                yield record
                continue
            moment = _time(record)
            tally.without_time += moment is None
            if moment and self._is_in_time(moment):
                yield record

    def _is_in_time(self, moment: datetime) -> bool:
        return (not self.since or moment >= self.since) and (not self.until or moment < self.until)


def _begun(file: str) -> datetime | None:
    """When the run began, by the name of its object; None if it is another name."""
    found = _RUN_ID.search(file)
    try:
        return datetime.strptime(found[1], RUN_ID_FORMAT).replace(tzinfo=UTC) if found else None
    except ValueError:
        return None


def _time(record: Report | EventLine) -> datetime | None:
    if isinstance(record, Report):
        return fields.moment(record.generated)
    return fields.moment(
        record.fields.get("clickTime" if record.kind.startswith("clicks") else "messageTime")
    )
