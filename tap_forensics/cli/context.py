"""What every command gets: environment, bucket, two consoles; and how failures are reported."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
from google.cloud.exceptions import NotFound
from google.cloud.storage import Client
from rich.console import Console

from tap_forensics.cli.diagnosis import SIGNS, STYLES, Finding
from tap_forensics.cli.terminal import as_json, console, safe_text
from tap_forensics.clock import Clock
from tap_forensics.config.settings import Settings
from tap_forensics.config.tenants import load_places, load_tenant
from tap_forensics.errors import CollectorError, InvalidSettings
from tap_forensics.storage.bucket import open_client

_BUCKET_OF_A_FOLDER = "local-bucket"


def wait_option(meaning: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--wait SECONDS`, for `lease_wait_seconds`."""
    seconds = click.FloatRange(0)
    return click.option(
        "--wait", type=seconds, default=900, metavar="SECONDS", show_default=True, help=meaning
    )


class Exit(IntEnum):
    """The exit codes, as `tap-forensics --help` lists them."""

    GOOD = 0
    WRONG = 1
    USAGE = 2
    INCOMPLETE = 3
    BUSY = 4
    INTERRUPTED = 130


@dataclass(frozen=True)
class CommandContext:
    """Where one command works. `folder`, if given, takes the place of the bucket.

    `lease_wait_seconds`: how long to wait for a run that is at work.
    """

    environ: Mapping[str, str]
    folder: Path | None
    tenant: str | None
    as_json: bool
    clock: Clock
    out: Console
    err: Console
    lease_wait_seconds: float = 900

    @property
    def emulated(self) -> bool:
        return self.folder is not None or bool(self.environ.get("STORAGE_EMULATOR_HOST"))

    def settings(self, *, credentials: bool = True) -> Settings:
        """As the function reads them. Without `credentials`, those of TAP may be missing.

        Raises `InvalidSettings`.
        """
        environ = dict(self.environ)
        if self.folder is not None:
            environ.setdefault("GCS_BUCKET", _BUCKET_OF_A_FOLDER)
        return (load_tenant if credentials else load_places)(environ, self.tenant)

    @contextmanager
    def storage(self, settings: Settings) -> Iterator[Callable[[], Client]]:
        """How to open a client: for Google, for an emulator, or for a server of the folder's files."""
        if self.folder is None:
            yield open_client
            return
        with _served(self.folder, settings.bucket.name) as server:
            yield server.client

    @contextmanager
    def client(self, settings: Settings) -> Iterator[Client]:
        """One client, for commands that only read."""
        with self.storage(settings) as open_client, closing(open_client()) as client:
            yield client

    def print_status(self, words: str, style: str = "") -> None:
        """One line on stderr; skipped if the terminal is closed."""
        with suppress(OSError):
            self.err.print(safe_text(words, style), soft_wrap=True)

    def print_finding(self, finding: Finding) -> None:
        """Mark and words on one line, the remedy on the next."""
        line = safe_text(SIGNS[finding.mark], STYLES[finding.mark])
        line.append_text(safe_text(f" {finding.about}: {finding.words}"))
        self.out.print(line, soft_wrap=True)
        if finding.remedy:
            self.out.print(safe_text(f"    → {finding.remedy}", "dim"), soft_wrap=True)

    def print_json(self, value: Any) -> None:
        """The result, for programs."""
        click.echo(as_json(value), file=self.out.file)


@contextmanager
def _served(folder: Path, bucket: str) -> Iterator[Any]:
    try:
        from tap_forensics.sandbox.gcs import FakeBucket  # noqa: PLC0415 - part of another extra
    except ImportError:
        raise click.UsageError("--folder needs the extra `sandbox`: pip install '.[cli,sandbox]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    with FakeBucket(bucket, folder=folder) as server:
        try:
            server.names()
        except NotFound:
            raise click.UsageError(
                f"--folder {folder}: it contains files that this command did not write, and their versions "
                "are unknown; give a folder of its own"
            ) from None
        yield server


def cli_command(command: Callable[..., Exit]) -> Callable[..., None]:
    """Gives a command its `CommandContext`, the common options, and one handling of all failures."""

    @click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Use a folder of this machine instead of a bucket (extra `sandbox`).",
    )
    @click.option("--tenant", metavar="NAME", help="One of many tenants, by its name in TENANTS_DIR.")
    @click.option("--json", "machine", is_flag=True, help="Print the result as JSON.")
    @functools.wraps(command)
    def wrapped(folder: Path | None, tenant: str | None, machine: bool, **options: Any) -> None:
        context = CommandContext(
            os.environ, folder, tenant, machine, Clock(), console(sys.stdout), console(sys.stderr)
        )
        sys.exit(_exit_code(context, command, options))

    return wrapped


def _exit_code(context: CommandContext, command: Callable[..., Exit], options: dict[str, Any]) -> Exit:
    try:
        return command(context, **options)
    except InvalidSettings as error:
        _print_failure(context, error, error.faults)
        return Exit.USAGE
    except CollectorError as error:
        _print_failure(context, error, [str(error)])
        return Exit.WRONG
    except click.Abort:
        context.print_status("Not confirmed; nothing was changed. --yes confirms in advance.")
        return Exit.WRONG
    except KeyboardInterrupt:
        context.print_status("Interrupted.")
        return Exit.INTERRUPTED


def _print_failure(context: CommandContext, error: CollectorError, sentences: list[str]) -> None:
    if context.as_json:
        context.print_json({"error": type(error).__name__, "sentences": sentences})
    for sentence in sentences:
        context.print_status(f"✗ {sentence}", "red")
