"""A stand-in for the Chronicle API on loopback: what Google's client sends and reads, and no more.

Paths, methods and fields are those of the client and of Google's published schema of feeds. What the parser
answers is the tests' own choice: nobody here has seen the real one at work.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

CUSTOMER = "01234567-89ab-cdef-0123-456789abcdef"
PROJECT, REGION = "secops-project", "europe"
INSTANCE = f"projects/{PROJECT}/locations/{REGION}/instances/{CUSTOMER}"
ACCOUNT = "reader-1@secops-reader.iam.gserviceaccount.com"
OPTIONS = ("--secops", "--customer-id", CUSTOMER, "--project-id", PROJECT, "--region", REGION)

Json = dict[str, Any]
# (log type, line) → one entry of runParserResults.
Run = Callable[[str, Json], Json]


def feed(uri: str, log_type: str, **changed: Any) -> Json:
    """A Cloud Storage V2 feed that works, with the fields of Google's schema."""
    settings = {"bucketUri": uri, "sourceDeletionOption": "NEVER"} | changed.pop("settings", {})
    return {
        "name": f"{INSTANCE}/feeds/{abs(hash((uri, log_type)))}",
        "displayName": "collector",
        "details": {
            "feedSourceType": "GOOGLE_CLOUD_STORAGE_V2",
            "logType": f"{INSTANCE}/logTypes/{log_type}",
            "gcsV2Settings": settings,
        },
        "state": "SUCCEEDED",
        "lastFeedInitiationTime": "2026-11-26T20:15:00Z",
    } | changed


def reads(shape: str) -> Run:
    """A parser of forensics that wants this shape, and finds time and indicators only there; it reads any
    other line that has a time of its own.
    """

    def run(log_type: str, line: Json) -> Json:
        if log_type != "PROOFPOINT_TAP_FORENSICS":
            return events(log_type, "2026-11-26T20:00:00Z", [{"url": "https://shop.example.com/"}])
        if ("reports" in line) != (shape == "response"):
            return {"error": {"code": 3, "message": f"parsing failed: generated LOG: {json.dumps(line)}"}}
        report = line["reports"][0] if shape == "response" else line
        nouns = [item["what"] for item in report["forensics"]]
        return events(
            log_type, line["generated"], [{"url": noun.get("url", "example.com")} for noun in nouns]
        )

    return run


def events(log_type: str, moment: str | None, targets: list[Json]) -> Json:
    """The events of one line, each with one noun."""
    metadata = {"logType": log_type, "eventType": "GENERIC_EVENT"}
    metadata |= {"eventTimestamp": moment} if moment else {}
    return {"parsedEvents": {"events": [{"event": {"metadata": metadata, "target": t}} for t in targets]}}


@dataclass
class Call:
    """`path` is without the instance."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class SecopsApi:
    """The instance. `fails`: the beginning of a path → status and body; `hangs`: paths that get no answer."""

    url: str = ""
    feeds: list[Any] = field(default_factory=list)
    account: Json = field(default_factory=lambda: {"name": f"{INSTANCE}/feedServiceAccounts/{ACCOUNT}"})
    parsers: dict[str, list[Json]] = field(default_factory=dict)
    extensions: list[Json] = field(default_factory=list)
    run: Run = field(default_factory=lambda: reads("report"))
    raw_logs: list[tuple[str, str]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    fails: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)
    calls: list[Call] = field(default_factory=list)

    def set_up(self, bucket: str, **folders: str) -> None:
        """All as it should be: for each log type a feed on its folder, an active parser, and events."""
        for log_type, folder in folders.items():
            self.feeds.append(feed(f"gs://{bucket}/{folder}/", log_type))
            self.parsers[log_type] = [parser()]
            self.events.append(log_type)

    def answer(self, call: Call) -> Any:
        """The JSON of an answer; None: 404."""
        routes: dict[str, Callable[[str], Json]] = {
            r"feeds()": lambda _: self._page("feeds", self.feeds, call),
            r"feedServiceAccounts():fetchServiceAccountForCustomer": lambda _: self.account,
            r"logTypes/(\w+)/parsers": lambda name: self._page("parsers", self.parsers.get(name, []), call),
            r"logTypes/\w+/parserExtensions()": lambda _: self._page(
                "parserExtensions", self.extensions, call
            ),
            r"logTypes/(\w+):runParser": lambda name: self._run_parser(name, call.body),
            r"():searchRawLogs": lambda _: self._search(call.body),
            r"():udmSearch": lambda _: self._udm(call.query),
        }
        for pattern, reply in routes.items():
            if match := re.fullmatch(pattern, call.path):
                return reply(match[1])
        return None

    @staticmethod
    def _page(name: str, entries: list[Any], call: Call) -> Json:
        size, start = int(call.query["pageSize"]), int(call.query.get("pageToken", "0"))
        page: Json = {name: entries[start : start + size]}
        more = {"nextPageToken": str(start + size)} if start + size < len(entries) else {}
        return page | more

    def _run_parser(self, log_type: str, body: Json) -> Json:
        assert base64.b64decode(body["parser"]["cbn"])
        lines = [json.loads(base64.b64decode(log)) for log in body["log"]]
        return {"runParserResults": [{"log": "", **self.run(log_type, line)} for line in lines]}

    def _search(self, body: Json) -> Json:
        """As the API documents it. The pattern is matched by Python, which is close enough for ours."""
        pattern = re.fullmatch(r"raw = /(.*)/", body["baselineQuery"])
        assert pattern, body
        assert body["baselineTimeRange"]["startTime"] < body["baselineTimeRange"]["endTime"]
        wanted = {named["displayName"] for named in body["logTypes"]}
        found = [name for name, raw in self.raw_logs if re.search(pattern[1], raw, re.I) and name in wanted]
        return {"matches": [{"id": "bG9n", "logType": {"displayName": name}} for name in found]}

    def _udm(self, query: dict[str, str]) -> Json:
        found = [name for name in self.events if query["query"] == f'metadata.log_type = "{name}"']
        return {"events": [{"name": "x", "udm": {"metadata": {"logType": name}}} for name in found]}


def parser(code: str = "filter { json { source => message } }", **changed: Any) -> Json:
    """An active parser of Google."""
    cbn = base64.b64encode(code.encode()).decode()
    name = f"{INSTANCE}/logTypes/X/parsers/1"
    return {"name": name, "state": "ACTIVE", "type": "PREBUILT", "cbn": cbn} | changed


@contextmanager
def secops_api() -> Iterator[SecopsApi]:
    """Serves until the end of the block. Nothing is set up."""
    api = SecopsApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Silent."""

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(parts.path).removeprefix(f"/v1alpha/{INSTANCE}").removeprefix("/")
            call = Call(
                self.command,
                path,
                dict(parse_qsl(parts.query)),
                dict(self.headers.items()),
                json.loads(data) if data else None,
            )
            api.calls.append(call)
            if path in api.hangs:
                api.stopping.wait()
                return
            self._send(*_reply(api, call))

        do_POST = do_GET  # noqa: N815 - http.server's name

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if 300 <= status < 400:
                self.send_header("Location", f"{api.url}/elsewhere")
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Silent: who gives up waiting resets the connection."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield api
    finally:
        api.stopping.set()
        server.shutdown()
        server.server_close()


def _reply(api: SecopsApi, call: Call) -> tuple[int, bytes]:
    for start, failure in api.fails.items():
        if call.path.startswith(start):
            return failure
    answer = api.answer(call)
    if answer is None:
        return 404, b'{"error": {"code": 404, "status": "NOT_FOUND"}}'
    return 200, json.dumps(answer).encode()
