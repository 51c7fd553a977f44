"""`python -m tap_forensics`, and the console script `tap-forensics`."""

from __future__ import annotations

import sys


def main() -> None:
    """The operator's command line; without its libraries, a word on how to get them."""
    try:
        from tap_forensics.cli.main import tap_forensics  # noqa: PLC0415 - its libraries may be missing
    except ModuleNotFoundError as missing:
        if missing.name not in ("click", "rich"):
            raise
        print(  # noqa: T201 - there is no other way to say it yet
            "The command line needs the extra `cli`: from a checkout, pip install '.[cli]'", file=sys.stderr
        )
        sys.exit(2)
    tap_forensics(prog_name="tap-forensics")


if __name__ == "__main__":
    main()
