"""The group of commands. Each is imported only when it is called, with its libraries."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from tap_forensics import __version__

# A command's name, what it does, and where it is: `module:attribute` of this package.
COMMANDS = {
    "demo": ("Run the function on this machine against a generated tenant.", "demo:demo"),
    "run": ("Do one run now, in this process, with live progress.", "run:run"),
    "check": ("Check settings, credentials, bucket, state, objects, clock and calls.", "check:check"),
    "status": ("Show last run, cursor, backlog, gaps, calls and newest objects.", "status:status"),
    "backfill": ("Read a past interval within TAP's 7 days again.", "backfill:backfill"),
    "audit": ("Prove that the bucket has what TAP shows of a past interval.", "audit:audit"),
    "state": ("Show the state object, repair it, or start anew.", "state:state"),
    "udm": ("Show the UDM events that SecOps' default parser is documented to make.", "udm:udm"),
    "report": ("Make one HTML page of the evidence, with its indicators.", "report:report"),
}

_EPILOG = """\b
Exit codes:
  0    all is well
  1    something is wrong, the command failed, or you answered no
  2    wrong usage or settings; nothing was changed
  3    not finished; a later run continues
  4    another run holds the lease; nothing was done
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP)

\b
Shell completion:
  bash  eval "$(_TAP_FORENSICS_COMPLETE=bash_source tap-forensics)"     in ~/.bashrc
  zsh   eval "$(_TAP_FORENSICS_COMPLETE=zsh_source tap-forensics)"      in ~/.zshrc
  fish  _TAP_FORENSICS_COMPLETE=fish_source tap-forensics | source      in ~/.config/fish/config.fish
"""


class Commands(click.Group):
    """Finds commands in COMMANDS, so that `--help` of the group imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][1].split(":")
        command: click.Command = getattr(import_module(f"tap_forensics.cli.{module}"), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """One exit code for every command that is interrupted."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # If the terminal is closed, nobody can read this.
            with suppress(OSError):
                click.echo("Interrupted.", err=True)
            return ctx.exit(130)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (about, _) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="tap-forensics")
def tap_forensics() -> None:
    """Collect Proofpoint TAP forensics into a Cloud Storage bucket: the operator's command line.

    Uses the function's environment variables, and a real bucket with your Google credentials, an emulator
    (STORAGE_EMULATOR_HOST), or a folder of this machine (--folder).
    """
