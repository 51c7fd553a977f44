"""`python -m tap_forensics.sandbox demo` and `… run`: the function on this machine with a local bucket."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from tap_forensics.sandbox.demo import demo, run, until_interrupted

ROOT = Path(__file__).resolve().parents[2]


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m tap_forensics.sandbox", description=__doc__)
    options.add_argument("--source", type=Path, default=ROOT / "main.py", help="the function's main.py")
    commands = options.add_subparsers(dest="command", required=True)
    generated = commands.add_parser(
        "demo", help="a generated tenant: two events, what they write, and a check"
    )
    generated.add_argument("--seed", type=int, default=1)
    generated.add_argument("--keep", action="store_true", help="leave the tenant up, for commands to try")
    real = commands.add_parser("run", help="the real API with your TAP_PRINCIPAL and TAP_SECRET; stays up")
    real.add_argument("--port", type=int, default=8080)
    return options


def main(arguments: list[str] | None = None) -> int:
    """0: all is as it should be; 1: it is not; 2: it could not start; 130: interrupted."""
    options = parser().parse_args(arguments)
    if not options.source.is_file():
        print(f"There is no {options.source}: run this from a checkout of the project, or give --source.")
        return 2
    # `kill` ends the children as Ctrl-C does; a shell's background job ignores Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # `nohup` makes this process ignore it; that stays so.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hang_up)
    if options.command == "demo":
        return until_interrupted(lambda: demo(options.source, options.seed, keep=options.keep))
    return until_interrupted(lambda: run(options.source, options.port, os.environ))


def _hang_up(*_: object) -> None:
    """The terminal was closed: ends as on Ctrl-C. A second hang-up must not disturb that."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
