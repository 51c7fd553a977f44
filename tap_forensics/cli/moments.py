"""Times as options of a command."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from tap_forensics.clock import floor_to_second
from tap_forensics.config import validators as allowed


class Moment(click.ParamType[datetime]):
    """ISO 8601; without an offset it is UTC."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return floor_to_second(allowed.timestamp(value))
        except ValueError as error:
            self.fail(f"{value!r}: give {error}", param, ctx)
