"""`python -m tap_forensics.sandbox demo` and `… run`: the function on this machine, with a local bucket."""

from __future__ import annotations

import argparse
import os
import signal
from contextlib import suppress
from pathlib import Path

from tap_forensics.sandbox.demo import demo, run

ROOT = Path(__file__).resolve().parents[2]


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m tap_forensics.sandbox", description=__doc__)
    options.add_argument("--source", type=Path, default=ROOT / "main.py", help="the function's main.py")
    commands = options.add_subparsers(dest="command", required=True)
    made_up = commands.add_parser("demo", help="a made-up tenant: two events, what they write, and a check")
    made_up.add_argument("--seed", type=int, default=1)
    real = commands.add_parser("run", help="the real API with your TAP_PRINCIPAL and TAP_SECRET; stays up")
    real.add_argument("--port", type=int, default=8080)
    return options


def main(arguments: list[str] | None = None) -> int:
    """0: all came as it should; 1: it did not; 2: it could not start; 130: interrupted."""
    options = parser().parse_args(arguments)
    if not options.source.is_file():
        print(f"There is no {options.source}: run this from a checkout of the project, or give --source.")
        return 2
    # So that `kill` ends the children just as Ctrl-C does, which a shell's background job would ignore.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # `nohup` has it ignored, and that stays so.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hang_up)
    try:
        if options.command == "demo":
            return demo(options.source, options.seed)
        return run(options.source, options.port, os.environ)
    except KeyboardInterrupt:
        # With the terminal gone there is nobody to tell.
        with suppress(OSError):
            print("\nInterrupted. Everything started here has ended.", flush=True)
        return 130


def _hang_up(*_: object) -> None:
    """The terminal was closed: ends as on Ctrl-C, whose end a second hang-up must not disturb."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
