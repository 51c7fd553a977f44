"""What `demo --keep` prints at the end: the tenant's variables for a shell, and commands to try with them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tap_forensics.sandbox import console as display

CHECKOUT = Path(__file__).resolve().parents[2]
# Each would change what the commands do, and a proxy is not needed on loopback.
CONFLICTING = [
    "CAMPAIGN_FIRST",
    "CAMPAIGN_REPORTS",
    "DEDUP_HOURS",
    "END_LAG_SECONDS",
    "EVENTS_SHAPE",
    "FETCH_CONCURRENCY",
    "FORENSICS",
    "GCS_PREFIX",
    "HTTPS_PROXY",
    "HTTPS_PROXY_FILE",
    "LEASE_SECONDS",
    "MAX_THREATS",
    "NO_PROXY",
    "OVERLAP_MINUTES",
    "RECORD_SHAPE",
    "RUN_BUDGET_SECONDS",
    "SINCE_TIME",
    "STATE_KEY",
    "TAP_CAMPAIGN_FORENSICS_DAILY_LIMIT",
    "TAP_FORENSICS_DAILY_LIMIT",
    "TAP_PRINCIPAL_FILE",
    "TAP_SECRET_FILE",
    "TAP_SIEM_DAILY_LIMIT",
    "TENANTS_DIR",
    "THREAT_STATUS",
    "THREAT_TYPE",
    "ALL_PROXY",
    "HTTP_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
]


def show_next_steps(variables: Mapping[str, str], curl: str) -> None:
    """Prints what to copy into a second terminal."""
    command = _command_line()
    display.heading("The tenant stays up until Ctrl-C. In a second terminal:")
    print("\n".join(_exports(variables)))
    print("\nThen try:")
    since = datetime.now(UTC) - timedelta(hours=2, minutes=30)
    for words in (
        "check",
        "status",
        f"audit --from {since:%Y-%m-%dT%H:%MZ}",
        f"report gs://{variables['GCS_BUCKET']}/ -o report.html",
    ):
        print(f"  {command} {words}")
    print(f"\nAnother event for the function:\n  {curl}", flush=True)


def _exports(variables: Mapping[str, str]) -> Iterator[str]:
    if conflicting := [name for name in CONFLICTING if name in os.environ]:
        yield f"unset {' '.join(conflicting)}"
    for name, value in variables.items():
        yield f"export {name}={shlex.quote(value)}"
    if not shutil.which("tap-forensics"):
        yield f"export {_search_path()}"


def _search_path() -> str:
    """Where the shell finds the command, or Python the package."""
    folder = _script_folder()
    return f"PATH={shlex.quote(folder)}:$PATH" if folder else f"PYTHONPATH={shlex.quote(str(CHECKOUT))}"


def _script_folder() -> str | None:
    """The folder of this Python, if the command is there too."""
    folder = str(Path(sys.executable).parent)
    return folder if shutil.which("tap-forensics", path=folder) else None


def _command_line() -> str:
    if shutil.which("tap-forensics") or _script_folder():
        return "tap-forensics"
    return shlex.join([sys.executable, "-m", "tap_forensics"])
