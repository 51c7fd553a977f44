"""The storage client of the function goes to Google directly, whatever proxy the environment names."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.storage.bucket import Bucket, open_client
from tests.support.loopback import Answering, answer, read_head, serving

TOKEN = json.dumps({"access_token": "t-1", "expires_in": 3600, "token_type": "Bearer"}).encode()
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
# A process of its own: google-auth reads where the metadata server is when it is imported.
ASK = """
import sys
from tap_forensics.storage.bucket import open_client
with open_client() as client:
    print(client._http.get(sys.argv[1], timeout=10).text)
"""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """Named by every variable there is, for every host; keeps what it is asked."""
    asked = Answering(answer(b"", "502 Bad Gateway"))
    with serving(asked) as port:
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://user:word@127.0.0.1:{port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield asked


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For localhost, by an authority that only REQUESTS_CA_BUNDLE names."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    return context


@dataclass
class Google:
    """The metadata server, the token endpoint and the storage, as far as one question needs them."""

    heads: list[str] = field(default_factory=list)

    def __call__(self, connection: socket.socket) -> None:
        while head := read_head(connection):
            self.heads.append(head)
            for _ in range(int(_header(head, "content-length") or 0)):
                connection.recv(1)
            connection.sendall(answer(self._body(head.split()[1]), "200 OK", *self._headers(head)))

    def _body(self, path: str) -> bytes:
        if "token" in path:
            return TOKEN
        return (
            b'{"email":"collector@example.com","scopes":[]}' if "service-accounts" in path else b"an answer"
        )

    def _headers(self, head: str) -> list[str]:
        kind = "application/json" if "token" in head or "service-accounts" in head else "text/plain"
        return ["Metadata-Flavor: Google", f"Content-Type: {kind}"]


def _header(head: str, name: str) -> str:
    found = [line.split(":", 1)[1] for line in head.split("\r\n") if line.lower().startswith(f"{name}:")]
    return found[0].strip() if found else ""


def ask(url: str, folder: Path, **variables: str) -> str:
    own = {"CLOUDSDK_CONFIG": str(folder), "HOME": str(folder), **variables}
    env = {name: value for name, value in os.environ.items() if name != "STORAGE_EMULATOR_HOST"} | own
    completed = subprocess.run(  # noqa: S603 (our own few lines)
        [sys.executable, "-c", ASK, url], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


def test_the_storage_is_reached_without_the_proxy(
    fake: FakeBucket, proxy: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    with open_client() as client:
        Bucket(client, fake.name, lambda: 30.0).create("o", b"x", "text/plain")
    assert fake.get("o") == b"x"
    assert proxy.heads == []


def test_tls_to_the_storage_takes_the_authority_of_the_environment(
    proxy: Answering, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Answering(answer(b"bytes", "200 OK", "X-Goog-Generation: 7"))
    with serving(storage, tls) as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"https://localhost:{port}")
        with open_client() as client:
            stored = Bucket(client, "demo-bucket", lambda: 30.0).read("o")
    assert stored
    assert (stored.data, proxy.heads) == (b"bytes", [])


@pytest.mark.slow
def test_a_new_token_is_fetched_without_the_proxy(
    proxy: Answering, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    google = Google()
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with serving(google, tls) as port:
        url = f"https://localhost:{port}"
        account = {"type": "service_account", "client_email": "collector@example.com", "private_key": pem}
        account |= {"token_uri": f"{url}/token", "project_id": "demo", "private_key_id": "1"}
        (tmp_path / "key.json").write_text(json.dumps(account), encoding="utf-8")
        found = ask(f"{url}/o", tmp_path, GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "key.json"))
    assert (found, proxy.heads) == ("an answer", [])
    assert [head.split()[1] for head in google.heads][-2:] == ["/token", "/o"]


@pytest.mark.slow
def test_the_metadata_server_is_asked_without_the_proxy(proxy: Answering, tmp_path: Path) -> None:
    google = Google()
    with serving(google) as port:
        place = f"127.0.0.1:{port}"
        found = ask(f"http://{place}/o", tmp_path, GCE_METADATA_HOST=place, GCE_METADATA_IP=place)
    assert (found, proxy.heads) == ("an answer", [])
    assert _header(google.heads[-1], "authorization") == "Bearer t-1"
