"""SOURCE of the commands that read lines: a file, a folder, gs://bucket/prefix, or - for stdin."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from tap_forensics.errors import StorageFailed
from tap_forensics.log import escape_unprintable
from tap_forensics.storage.bucket import open_client
from tap_forensics.storage.remedies import storage_fault

# The function writes no line over 3.5 MB, and SecOps accepts none over 4.
LONGEST_LINE_BYTES = 8 * 1024 * 1024
_READ_AT_ONCE_BYTES = 4 * 1024 * 1024
_BUFFER_BYTES = 256 * 1024
_SUFFIXES = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
_WANTED = " or ".join(_SUFFIXES[:2])
_GS = "gs://"
SUMMARIES_STEM = "tap_threat_summaries_"
_TIMEOUT_SECONDS = (10, 60)
_RETRY = DEFAULT_RETRY.with_timeout(60)
_BROKEN = (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption)


Wants = Callable[[str], bool]


class SourceFault(click.ClickException):
    """SOURCE cannot be read: ends the command with one sentence and exit code 1."""


class NoSource(SourceFault):
    """There is no such SOURCE at all."""

    exit_code = 2


@dataclass(frozen=True)
class Line:
    """`place` is `name:number`, escaped. `data` is None if the line cannot be read, and `why` says why."""

    place: str
    data: bytes | None
    why: str = ""


def source_lines(source: str, stdin: BinaryIO, wants: Wants = lambda _: True) -> Iterator[Line]:
    """Every line that is not blank, object by object, never more than one in memory: first the summaries,
    which tell more about the threats in the others, each in order of name.

    In a folder or under a prefix, only objects with an NDJSON suffix count, gzipped or not: a state object
    is not evidence. `wants` gets the name of each. Raises `SourceFault`.
    """
    if source == "-":
        yield from _lines("stdin", stdin)
        return
    for name, stream in _objects(source, wants) if source.startswith(_GS) else _files(Path(source), wants):
        with stream, _unpacked(name, stream) as lines:
            yield from _lines(name, lines)


def _is_summary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(SUMMARIES_STEM)


def _files(path: Path, wants: Wants) -> Iterator[tuple[str, BinaryIO]]:
    if path.is_dir():
        named = (p for p in path.rglob("*") if p.name.endswith(_SUFFIXES) and p.is_file())
        found = sorted((p for p in named if wants(p.as_posix())), key=lambda p: (not _is_summary(p.name), p))
    elif path.exists():
        found = [path]
    else:
        raise NoSource(
            f"there is no {escape_unprintable(str(path))}: "
            "give a file, a folder, gs://bucket/prefix, or - for stdin"
        )
    if not found:
        raise SourceFault(f"no {_WANTED} file in {escape_unprintable(str(path))}")
    for file in found:
        try:
            stream = file.open("rb")
        except OSError as error:
            raise SourceFault(f"could not open {escape_unprintable(str(file))}: {error.strerror}") from None
        yield str(file), stream


def _objects(source: str, wants: Wants) -> Iterator[tuple[str, BinaryIO]]:
    """The objects under gs://bucket/prefix. As everywhere in GCS, names begin with the prefix."""
    bucket, _, prefix = source.removeprefix(_GS).partition("/")
    if not bucket:
        raise NoSource("gs:// needs the name of a bucket: gs://bucket/prefix")
    try:
        client = open_client()
    except StorageFailed as error:
        raise SourceFault(str(error)) from None
    with client:
        count = 0
        # Listed twice, so that not all names are in memory.
        for summaries in (True, False):
            for blob in _listed(client, bucket, prefix):
                is_meant = blob.name.endswith(_SUFFIXES) or blob.name == prefix
                if is_meant and _is_summary(blob.name) is summaries and wants(blob.name):
                    count += 1
                    yield f"{_GS}{bucket}/{blob.name}", _opened(blob)
        if not count:
            raise SourceFault(f"no {_WANTED} object under {escape_unprintable(source)}")


def _opened(blob: Any) -> BinaryIO:
    reader = blob.open("rb", chunk_size=_READ_AT_ONCE_BYTES, timeout=_TIMEOUT_SECONDS, retry=_RETRY)
    # Alone, it would be read byte by byte to find a line's end.
    return io.BufferedReader(reader, _BUFFER_BYTES)


def _listed(client: Any, bucket: str, prefix: str) -> Iterator[Any]:
    try:
        yield from client.list_blobs(bucket, prefix=prefix, timeout=_TIMEOUT_SECONDS, retry=_RETRY)
    except (*_BROKEN, OSError, ValueError) as error:
        raise _fault(f"{_GS}{bucket}", error) from None


def _unpacked(name: str, stream: BinaryIO) -> BinaryIO:
    return io.BufferedReader(gzip.GzipFile(fileobj=stream)) if name.endswith(".gz") else stream


def _lines(name: str, stream: BinaryIO) -> Iterator[Line]:
    """A truncated gzip counts as one invalid line; an error of the bucket ends the command."""
    number = 0
    try:
        while data := stream.readline(LONGEST_LINE_BYTES + 1):
            number += 1
            if len(data) > LONGEST_LINE_BYTES:
                _skip_line(stream, data)
                yield Line(_place(name, number), None, "longer than 8 MiB")
            elif data.strip():
                yield Line(_place(name, number), data)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield Line(_place(name, number + 1), None, "not valid gzip from here on")
    except (*_BROKEN, OSError) as error:
        raise _fault(name, error) from None


def _skip_line(stream: BinaryIO, data: bytes) -> None:
    while data and not data.endswith(b"\n"):
        data = stream.readline(_READ_AT_ONCE_BYTES)


def _place(name: str, number: int) -> str:
    return f"{escape_unprintable(name)}:{number}"


def _fault(name: str, error: Exception) -> SourceFault:
    return SourceFault(storage_fault(f"read {escape_unprintable(name)}", error))
