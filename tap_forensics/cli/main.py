"""The group of commands. Each is imported when it is called, and its libraries with it."""

from __future__ import annotations

from importlib import import_module

import click

from tap_forensics import __version__

# A command's name, what it does, and where it is: `module:attribute` of this package.
COMMANDS = {
    "demo": ("The function on this machine, against a generated tenant.", "demo:demo"),
    "run": ("One run now, in this process, with live progress.", "run:run"),
    "check": ("The doctor: settings, credentials, bucket, state, objects, clock and calls.", "check:check"),
    "status": ("Last run, cursor, backlog, gaps, calls and newest objects.", "status:status"),
    "backfill": ("Read a past interval within TAP's 7 days once more.", "backfill:backfill"),
    "state": ("Show the state object, repair it, or start anew.", "state:state"),
    "udm": ("What SecOps' default parser is documented to make of the lines.", "udm:udm"),
    "report": ("One page of the evidence for a person, with its indicators.", "report:report"),
}

_EXIT_CODES = """\b
Exit codes:
  0    good
  1    something is wrong, the run failed, or you answered no
  2    wrong usage or settings; nothing was called
  3    not done yet: something waits for another run
  4    another run holds the lease; nothing was done
  130  interrupted
"""


class Commands(click.Group):
    """Finds commands by COMMANDS, so that `--help` of the group imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][1].split(":")
        command: click.Command = getattr(import_module(f"tap_forensics.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (about, _) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
)
@click.version_option(__version__, prog_name="tap-forensics")
def tap_forensics() -> None:
    """Collects Proofpoint TAP forensics into a Cloud Storage bucket: what an operator needs by hand.

    Works with the function's environment variables: on a real bucket with your Google credentials, on an
    emulator (STORAGE_EMULATOR_HOST), or on a folder of this machine (--folder).
    """
