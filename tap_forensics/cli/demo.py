"""`tap-forensics demo`: the function on this machine, against a generated tenant."""

from __future__ import annotations

from pathlib import Path

import click

CHECKOUT = Path(__file__).resolve().parents[2]


@click.command(
    epilog="""\b
Examples:
  tap-forensics demo
  tap-forensics demo --keep
"""
)
@click.option("--keep", is_flag=True, help="Leave the tenant up until Ctrl-C, for commands to try.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another tenant.")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    default=CHECKOUT / "main.py",
    help="The function's main.py; by default that of this checkout.",
)
def demo(keep: bool, seed: int, source: Path) -> None:
    """Run the function on this machine against a generated tenant. Needs a checkout and no credentials.

    Starts a TAP stand-in, a bucket and the function on loopback, posts two events and checks what was
    written. With --keep all three stay up, and the variables and commands to try are printed.
    """
    if not source.is_file():
        raise click.UsageError(f"there is no {source}: run this from a checkout, or give --source")
    try:
        from tap_forensics.sandbox import demo as shows  # noqa: PLC0415 - part of another extra
    except ModuleNotFoundError as missing:
        raise click.UsageError(
            f"demo needs the extra `sandbox` ({missing.name} is missing): pip install '.[cli,sandbox]'"
        ) from None
    raise click.exceptions.Exit(shows.until_interrupted(lambda: shows.demo(source, seed, keep=keep)))
