"""`python -m tap_forensics`, and the console script `tap-forensics`."""

from __future__ import annotations

import io
import signal
import sys


def main() -> None:
    """The operator's command line; without its libraries, a word on how to get them."""
    try:
        # Here, since its libraries may be missing; rich only to see whether it is there.
        import rich  # noqa: F401, PLC0415

        from tap_forensics.cli.main import tap_forensics  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        if missing.name not in ("click", "rich"):
            raise
        print(  # noqa: T201 - there is no other way to say it yet
            "The command line needs the extra `cli`: from a checkout, pip install '.[cli]'", file=sys.stderr
        )
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Where the terminal has no UTF-8, a question mark and no traceback.
            stream.reconfigure(errors="replace")
    # `kill` ends a run in order, just as Ctrl-C does; a shell's background job ignores the latter.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # `nohup` has it ignored, and that stays so; Windows has none.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hang_up)
    tap_forensics(prog_name="tap-forensics")


def _hang_up(*_: object) -> None:
    """The terminal was closed: ends as on Ctrl-C, whose end a second hang-up must not disturb."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
