"""The group of all commands."""

from __future__ import annotations

import click

from tap_forensics.cli.report import report
from tap_forensics.cli.udm import udm


@click.group()
def main() -> None:
    """What the collector wrote, for a person to look at."""


main.add_command(udm)
main.add_command(report)
