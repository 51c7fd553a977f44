"""What every command is given: environment, bucket, two consoles; and how failures are told."""

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

from tap_forensics.cli.terminal import as_json, console, safe_text
from tap_forensics.clock import Clock
from tap_forensics.config.settings import Settings
from tap_forensics.config.tenants import load_places, load_tenant
from tap_forensics.errors import CollectorError, InvalidSettings
from tap_forensics.storage.bucket import open_client

_FOLDERS_BUCKET = "local-bucket"


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
    """Where one command works. `folder` stands for the bucket where it is given; `tenant`: whose it is.

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
        """As the function reads them. Without `credentials` those of TAP need not be there.

        Raises `SettingsFault`.
        """
        environ = dict(self.environ)
        if self.folder is not None:
            environ.setdefault("GCS_BUCKET", _FOLDERS_BUCKET)
        return (load_tenant if credentials else load_places)(environ, self.tenant)

    @contextmanager
    def storage(self, settings: Settings) -> Iterator[Callable[[], Client]]:
        """The way to open a client: to Google, to an emulator, or to a server for the folder's files."""
        if self.folder is None:
            yield open_client
            return
        with _served(self.folder, settings.bucket.name) as server:
            yield server.client

    @contextmanager
    def client(self, settings: Settings) -> Iterator[Client]:
        """One client, for commands that only look."""
        with self.storage(settings) as open_client, closing(open_client()) as client:
            yield client

    def print_status(self, words: str, style: str = "") -> None:
        """A line beside the result, if there is still somebody to read it."""
        with suppress(OSError):
            self.err.print(safe_text(words, style), soft_wrap=True)

    def print_json(self, value: Any) -> None:
        """The result, for machines."""
        click.echo(as_json(value), file=self.out.file)


@contextmanager
def _served(folder: Path, bucket: str) -> Iterator[Any]:
    try:
        from tap_forensics.sandbox.gcs import FakeBucket  # noqa: PLC0415 - of another extra
    except ImportError:
        raise click.UsageError("--folder needs the extra `sandbox`: pip install '.[cli,sandbox]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    with FakeBucket(bucket, folder=folder) as server:
        try:
            server.names()
        except NotFound:
            raise click.UsageError(
                f"--folder {folder}: it holds files that were not written through this command, and its "
                "server cannot tell their versions; give a folder of its own"
            ) from None
        yield server


def cli_command(command: Callable[..., Exit]) -> Callable[..., None]:
    """Gives a command its `Desk`, the options that all have, and one end for every failure."""

    @click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Work on a folder of this machine instead of a bucket (extra `sandbox`).",
    )
    @click.option("--tenant", metavar="NAME", help="Of the tenant that a message names so (TENANTS_DIR).")
    @click.option("--json", "machine", is_flag=True, help="The result as JSON on stdout.")
    @functools.wraps(command)
    def wrapped(folder: Path | None, tenant: str | None, machine: bool, **options: Any) -> None:
        context = CommandContext(
            os.environ, folder, tenant, machine, Clock(), console(sys.stdout), console(sys.stderr)
        )
        sys.exit(_ended(context, command, options))

    return wrapped


def _ended(context: CommandContext, command: Callable[..., Exit], options: dict[str, Any]) -> Exit:
    try:
        return command(context, **options)
    except InvalidSettings as fault:
        _tell_failure(context, fault, fault.faults)
        return Exit.USAGE
    except CollectorError as error:
        _tell_failure(context, error, [str(error)])
        return Exit.WRONG
    except click.Abort:
        context.print_status("Not confirmed; nothing was changed. --yes answers beforehand.")
        return Exit.WRONG
    except KeyboardInterrupt:
        context.print_status("Interrupted.")
        return Exit.INTERRUPTED


def _tell_failure(context: CommandContext, error: CollectorError, sentences: list[str]) -> None:
    if context.as_json:
        context.print_json({"error": type(error).__name__, "sentences": sentences})
    for sentence in sentences:
        context.print_status(f"✗ {sentence}", "red")
