"""SOURCE of the commands that read lines: a file, a folder, gs://bucket/prefix, or - for stdin."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
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
_SUFFIXES = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
_GS = "gs://"
_TIMEOUT_SECONDS = (10, 60)
_RETRY = DEFAULT_RETRY.with_timeout(60)
_BROKEN = (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption)


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


def source_lines(source: str, stdin: BinaryIO) -> Iterator[Line]:
    """Every line that is not blank, object by object in order of name, never more than one in memory.

    In a folder or under a prefix, only objects with an NDJSON suffix count, gzipped or not: a state object
    is not evidence. Raises `SourceFault`.
    """
    if source == "-":
        yield from _lines("stdin", stdin)
        return
    for name, stream in _objects(source) if source.startswith(_GS) else _files(Path(source)):
        with stream, _unpacked(name, stream) as lines:
            yield from _lines(name, lines)


def _files(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.name.endswith(_SUFFIXES) and p.is_file())
    elif path.exists():
        found = [path]
    else:
        raise NoSource(
            f"there is no {escape_unprintable(str(path))}: "
            "give a file, a folder, gs://bucket/prefix, or - for stdin"
        )
    if not found:
        raise SourceFault(f"no {' or '.join(_SUFFIXES[:2])} file in {escape_unprintable(str(path))}")
    for file in found:
        try:
            stream = file.open("rb")
        except OSError as error:
            raise SourceFault(f"could not open {escape_unprintable(str(file))}: {error.strerror}") from None
        yield str(file), stream


def _objects(source: str) -> Iterator[tuple[str, BinaryIO]]:
    """The objects under gs://bucket/prefix. As everywhere in GCS, names begin with the prefix."""
    bucket, _, prefix = source.removeprefix(_GS).partition("/")
    if not bucket:
        raise NoSource("gs:// needs the name of a bucket: gs://bucket/prefix")
    try:
        client = open_client()
    except StorageFailed as error:
        raise SourceFault(str(error)) from None
    with client:
        yield from _opened(_listed(client, bucket, prefix), source, prefix)


def _opened(blobs: Iterator[Any], source: str, prefix: str) -> Iterator[tuple[str, BinaryIO]]:
    count = 0
    for blob in blobs:
        if not blob.name.endswith(_SUFFIXES) and blob.name != prefix:
            continue
        count += 1
        reader = blob.open("rb", chunk_size=_READ_AT_ONCE_BYTES, timeout=_TIMEOUT_SECONDS, retry=_RETRY)
        yield f"{_GS}{blob.bucket.name}/{blob.name}", reader
    if not count:
        raise SourceFault(f"no {' or '.join(_SUFFIXES[:2])} object under {escape_unprintable(source)}")


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
