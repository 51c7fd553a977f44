"""Google Cloud in small, on loopback: it keeps what gcloud makes, and a journal of each request.

Names, verbs and operations follow Google's REST conventions: a collection is POSTed to, a thing is read,
changed and deleted under its name, everything else is a `:verb`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

PROJECT_ID, PROJECT_NUMBER = "demo-proj", "123456789012"
PROJECT = f"projects/{PROJECT_ID}"
REGION = "us-central1"
LOCATION = f"{PROJECT}/locations/{REGION}"
SUBSCRIPTION = f"{PROJECT}/subscriptions/eventarc-demo-sub"

_UPLOAD = "/upload/source.zip"
# What gcloud asks by an address of its own. Cloud Run's is not here: gcloud puts the region in front of it.
_SERVICES = (
    *(
        "artifactregistry",
        "cloudbilling",
        "cloudbuild",
        "cloudfunctions",
        "cloudresourcemanager",
        "cloudscheduler",
    ),
    *("eventarc", "iam", "pubsub", "secretmanager", "serviceusage"),
)
# Fields in which a PATCH carries the thing itself.
_WRAPPED = ("subscription", "topic")

Reply = tuple[int, Any]


@dataclass
class Call:
    """One request of gcloud: `path` begins with the service and is without the query."""

    method: str
    path: str
    query: dict[str, str] = field(repr=False)
    body: Any

    def changes(self) -> bool:
        # To ask for a policy is a POST too.
        return self.method != "GET" and not self.path.endswith(":getIamPolicy")


class GoogleCloud:
    """The server, as a context manager. `things` are kept by service and name: `pubsub/projects/…`.

    `refused`: replies to every request whose method and path match a pattern.
    """

    def __init__(self) -> None:
        self.refused: dict[str, Reply] = {}
        self.billing = True
        self.calls: list[Call] = []
        self.things: dict[str, dict[str, Any]] = {}
        self.upload = b""
        self._policies: dict[str, Any] = {}
        self._enabled: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._server = _Server(self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, folder: Path) -> dict[str, str]:
        """What makes gcloud ask this server and nobody else, without an account."""
        token = folder / "token"
        token.write_text("any text", encoding="utf-8")
        overrides = {name: f"{self.url}/{name}/" for name in _SERVICES}
        overrides["storage"] = f"{self.url}/storage/storage/v1/"
        # Reached through the proxy, which is this server: us-central1-run.test is in no DNS.
        overrides["run"] = "http://run.test/run/"
        return {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{k.upper()}": url for k, url in overrides.items()} | {
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "CLOUDSDK_CONFIG": str(folder),
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(token),
            "CLOUDSDK_CORE_PROJECT": PROJECT_ID,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
            "CLOUDSDK_SURVEY_DISABLE_PROMPTS": "1",
            "http_proxy": self.url,
            # Whatever else gcloud would like to reach fails at once.
            "https_proxy": "http://127.0.0.1:1",
            "no_proxy": "127.0.0.1",
        }

    def __enter__(self) -> GoogleCloud:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, target: str, data: bytes) -> Reply:
        """Enters the request into the journal and answers it."""
        url = urlsplit(target)
        with self._one_at_a_time:
            if url.path == _UPLOAD:
                self.upload = data
                return 200, None
            body = json.loads(data) if data else {}
            call = Call(method, unquote(url.path), dict(parse_qsl(url.query)), body)
            self.calls.append(call)
            for pattern, reply in self.refused.items():
                if re.search(pattern, f"{method} {call.path}"):
                    return reply
            service, _, path = call.path.lstrip("/").partition("/")
            # Less the version, which differs between gcloud's commands for one thing.
            path = re.sub(r"^v\d\w*/", "", path)
            own = _OWN_RULES.get(service)
            return (own and own(self, call, path)) or self._by_convention(call, service, path)

    def _by_convention(self, call: Call, service: str, path: str) -> Reply:
        thing, colon, verb = path.rpartition(":")
        if colon and verb in ("getIamPolicy", "setIamPolicy"):
            return self.policy(f"{service}/{thing}", call.body.get("policy"))
        if call.method == "POST":
            given = [value for name, value in call.query.items() if name.endswith("Id")]
            name = f"{path}/{given[0]}" if given else call.body.get("name", path)
            return self.create(service, name, call.body)
        if call.method == "PUT":
            return self.create(service, path, call.body)
        return self.stored(call, f"{service}/{path}")

    def create(self, service: str, name: str, body: dict[str, Any]) -> Reply:
        key = f"{service}/{name}"
        if key in self.things:
            return error(409, "ALREADY_EXISTS", f"{name} already exists")
        self.things[key] = {**body, "name": name}
        return 200, self.things[key]

    def stored(self, call: Call, key: str) -> Reply:
        """A thing that is there is read, changed or deleted."""
        if key not in self.things:
            return error(404, "NOT_FOUND", f"{key} was not found")
        if call.method == "DELETE":
            del self.things[key]
            return 200, {}
        if call.method == "PATCH":
            changed = next((call.body[name] for name in _WRAPPED if name in call.body), call.body)
            self.things[key] = _merged(self.things[key], changed)
        return 200, self.things[key]

    def done(self, service: str, thing: dict[str, Any]) -> Reply:
        """A long-running operation that took no time; gcloud looks it up all the same."""
        typed = {
            "metadata": {"@type": "type.googleapis.com/google.cloud.functions.v2.OperationMetadata"},
            "response": {"@type": "type.googleapis.com/google.cloud.functions.v2.Function", **thing},
        }
        name = f"{LOCATION}/operations/{len(self.calls)}"
        return self.create(service, name, {"done": True, **typed})

    def policy(self, key: str, new: Any) -> Reply:
        if new is not None:
            self._policies[key] = new
        return 200, self._policies.get(key, {"version": 1, "etag": "BwXhqDVlDBg=", "bindings": []})

    def projects(self, _: Call, path: str) -> Reply | None:
        if ":" in path:
            return None
        return 200, {"projectId": PROJECT_ID, "projectNumber": PROJECT_NUMBER, "lifecycleState": "ACTIVE"}

    def billing_of(self, _: Call, path: str) -> Reply:
        return 200, {"name": path, "projectId": PROJECT_ID, "billingEnabled": self.billing}

    def services(self, call: Call, path: str) -> Reply | None:
        if call.method == "POST":
            self._enabled |= set(call.body.get("serviceIds", []))
            return self.done("serviceusage", {})
        name = path.rpartition("/")[2]
        if name != "services":
            return 200, {"state": "ENABLED" if name in self._enabled else "DISABLED"}
        listed = sorted(self._enabled)
        return 200, {"services": [{"config": {"name": service}, "state": "ENABLED"} for service in listed]}

    def accounts(self, call: Call, path: str) -> Reply | None:
        collection, _, email = path.rpartition("/")
        if call.method == "POST" and email == "serviceAccounts":
            email = f"{call.body['accountId']}@{PROJECT_ID}.iam.gserviceaccount.com"
            return self.create("iam", email, {"email": email, "projectId": PROJECT_ID})
        return self.stored(call, f"iam/{email}") if ":" not in email and collection else None

    def buckets(self, call: Call, path: str) -> Reply | None:
        _, _, path = path.partition("storage/v1/b")
        name, _, rest = path.lstrip("/").partition("/")
        if rest == "iam":
            return self.policy(f"storage/{name}", call.body or None)
        if call.method == "POST" and not name:
            same = {"kind": "storage#bucket", "id": call.body["name"], "metageneration": "1"}
            same["projectNumber"] = PROJECT_NUMBER
            return self.create("storage", call.body["name"], {**call.body, **same})
        return self.stored(call, f"storage/{name}")

    def functions(self, call: Call, path: str) -> Reply | None:
        if path.endswith(":generateUploadUrl"):
            where = {"bucket": "uploads", "object": "source.zip", "generation": "1"}
            return 200, {"uploadUrl": self.url + _UPLOAD, "storageSource": where}
        if path.endswith("/runtimes"):
            return 200, {"runtimes": [{"name": "python313", "stage": "GA", "environment": "GEN_2"}]}
        if call.method == "GET" or ":" in path:
            return None
        status, function = self._by_convention(call, "cloudfunctions", path)
        if status != 200:
            return status, function
        if call.method == "POST":
            self._deployed(function)
        return self.done("cloudfunctions", function)

    def _deployed(self, function: dict[str, Any]) -> None:
        """What a deployment makes beside the function: a service, a trigger, the trigger's subscription."""
        trigger = f"{LOCATION}/triggers/t-1"
        function |= {"state": "ACTIVE", "environment": "GEN_2"}
        function["eventTrigger"]["trigger"] = trigger
        function["serviceConfig"]["service"] = f"{LOCATION}/services/{function['name'].rpartition('/')[2]}"
        self.create("eventarc", trigger, {"transport": {"pubsub": {"subscription": SUBSCRIPTION}}})
        self.create("pubsub", SUBSCRIPTION, {})

    def builds(self, _: Call, path: str) -> Reply | None:
        if not path.endswith("/defaultServiceAccount"):
            return None
        account = f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
        self.things[f"iam/{account}"] = {"email": account}
        return 200, {"serviceAccountEmail": f"{PROJECT}/serviceAccounts/{account}"}

    def secrets(self, _: Call, path: str) -> Reply | None:
        if path.endswith(":addVersion"):
            return 200, {"name": f"{path.removesuffix(':addVersion')}/versions/1", "state": "ENABLED"}
        # gcloud looks through a secret's versions before it deletes it.
        return (200, {"versions": []}) if path.endswith("/versions") else None


_OWN_RULES: dict[str, Callable[[GoogleCloud, Call, str], Reply | None]] = {
    "cloudbilling": GoogleCloud.billing_of,
    "cloudresourcemanager": GoogleCloud.projects,
    "serviceusage": GoogleCloud.services,
    "iam": GoogleCloud.accounts,
    "storage": GoogleCloud.buckets,
    "cloudfunctions": GoogleCloud.functions,
    "cloudbuild": GoogleCloud.builds,
    "secretmanager": GoogleCloud.secrets,
}


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    return new


def error(code: int, status: str, message: str) -> Reply:
    return code, {"error": {"code": code, "status": status, "message": message}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cloud: GoogleCloud) -> None:
        self.cloud = cloud
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60

    def answer(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = self.server.cloud.answer(self.command, self.path, data)
        sent = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Silent: the journal is the log."""
