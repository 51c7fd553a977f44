"""A gate before the bucket that allows what IAM bindings allow. What each request needs is documented in
https://cloud.google.com/storage/docs/access-control/iam-json
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from tap_forensics.sandbox.gcs import FakeBucket
from tests.support.lab_bucket import Through

CREATE, DELETE, GET, LIST = (f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list"))
# What a run can use of each role. On an object a right to list has no effect: it is asked of the bucket.
ROLES = {
    "roles/storage.legacyBucketReader": (LIST,),
    "roles/storage.objectCreator": (CREATE,),
    "roles/storage.objectViewer": (GET,),
    "roles/storage.objectUser": (CREATE, DELETE, GET),
}
_CONDITION = re.compile(r'resource\.name\.startsWith\("(projects/_/buckets/[^"]+)"\)')
_OBJECT = re.compile(r"(?P<way>/download|/upload)?/storage/v1/b/(?P<bucket>[^/]+)/o(?:/(?P<name>.+))?")


@dataclass(frozen=True)
class Right:
    """One permission on every resource whose name begins so."""

    permission: str
    resources: str

    def __str__(self) -> str:
        return f"{self.permission} on {self.resources or 'all'}"


def rights_of(role: str, condition: str = "") -> Iterator[Right]:
    """What a binding of this role gives. Raises if the condition is none that is known here."""
    resources = ""
    if condition:
        found = _CONDITION.fullmatch(condition)
        assert found, condition
        resources = found[1]
    return (Right(permission, resources) for permission in ROLES[role])


@dataclass(frozen=True)
class Asked:
    """What a request wants: a permission on an object, or on the bucket if there is no name."""

    permission: str
    bucket: str
    name: str = ""

    @property
    def resource(self) -> str:
        return f"projects/_/buckets/{self.bucket}" + (f"/objects/{self.name}" if self.name else "")


class Permissions(Through):
    """Answers 403 to what no right allows. `used`: the rights that were needed, and are there.

    It is not documented whether a create at a name that is taken meets the lacking right to delete (403) or
    its precondition (412) first; `rights_first` chooses.
    """

    def __init__(self, rights: Iterable[Right], fake: FakeBucket, *, rights_first: bool = True) -> None:
        super().__init__()
        self.rights, self.fake, self.rights_first = list(rights), fake, rights_first
        self.used: set[Right] = set()
        self.refused: list[Asked] = []

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        asked = list(self._asked(request))
        if not all(self._allows(one) for one in asked):
            return _forbidden(request)
        response = super().send(request, *args, **kwargs)
        # Whoever may not list is not told that there is no such object.
        if response.status_code == 404 and not all(self._allows(Asked(LIST, one.bucket)) for one in asked):
            response.close()
            return _forbidden(request)
        return response

    def _allows(self, asked: Asked) -> bool:
        giving = [
            right
            for right in self.rights
            if right.permission == asked.permission and asked.resource.startswith(right.resources)
        ]
        self.used.update(giving)
        if not giving:
            self.refused.append(asked)
        return bool(giving)

    def _asked(self, request: PreparedRequest) -> Iterator[Asked]:
        url = urlsplit(str(request.url))
        query = parse_qs(url.query)
        place = _OBJECT.fullmatch(url.path)
        assert place, f"a request whose permission is not known here: {request.method} {url.path}"
        bucket, name = place["bucket"], unquote(place["name"] or "")
        if request.method == "GET":
            yield Asked(GET, bucket, name) if name else Asked(LIST, bucket)
        elif "upload_id" not in query:  # a session was allowed when it began
            assert (request.method, place["way"]) == ("POST", "/upload")
            yield from self._asked_by_upload(bucket, _name_in(request), query)

    def _asked_by_upload(self, bucket: str, name: str, query: dict[str, list[str]]) -> Iterator[Asked]:
        yield Asked(CREATE, bucket, name)
        if generation := self.fake.generation(name):
            expected = query.get("ifGenerationMatch", [str(generation)])
            if self.rights_first or expected == [str(generation)]:
                yield Asked(DELETE, bucket, name)


def _name_in(request: PreparedRequest) -> str:
    """The name is in the metadata at the start of the body."""
    body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
    found = re.search(rb'"name": ?("(?:[^"\\]|\\.)*")', body[:5000])
    assert found, body[:200]
    name: str = json.loads(found[1])
    return name


def _forbidden(request: PreparedRequest) -> Response:
    body = io.BytesIO(b'{"error": {"code": 403, "message": "denied by the gate"}}')
    return HTTPAdapter().build_response(request, HTTPResponse(body, {}, 403, preload_content=False))
