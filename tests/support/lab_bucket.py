"""A real bucket whose clock is the lab's, and ways to come between a run and its bucket."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter

from tap_forensics.sandbox.gcs import FakeBucket


class Through(BaseAdapter):
    """In front of the adapter that a client has. As it is, it only passes on: subclasses do more."""

    inner: BaseAdapter

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        return self.inner.send(request, *args, **kwargs)

    def close(self) -> None:
        self.inner.close()


class BucketClock(Through):
    """Rewrites what the server says of time: its `Date`, and when each generation was written."""

    def __init__(self, now: Callable[[], datetime], written: dict[str, datetime]) -> None:
        super().__init__()
        self.inner = HTTPAdapter()
        self.now, self.written = now, written

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        response = super().send(request, *args, **kwargs)
        now = self.now()
        # The header has whole seconds, as on the real server.
        response.headers["Date"] = format_datetime(now, usegmt=True)
        media = "alt=media" in (request.url or "")
        if not media and response.headers.get("Content-Type", "").startswith("application/json"):
            self._redate(response, now)
        return response

    def _redate(self, response: Response, now: datetime) -> None:
        try:
            answer = json.loads(response.content)
        except ValueError:
            return
        resources = answer.get("items", [answer]) if isinstance(answer, dict) else []
        for resource in resources:
            self._redate_object(resource, now)
        response._content = json.dumps(answer).encode()
        # Else the old length or packing would be believed.
        response.headers.pop("Content-Encoding", None)
        response.headers["Content-Length"] = str(len(response.content))

    def _redate_object(self, resource: dict[str, Any], now: datetime) -> None:
        """An answer to an upload is the first that tells of its generation."""
        if "generation" not in resource:
            return
        moment = self.written.setdefault(f"{resource.get('name')}#{resource['generation']}", now)
        stamp = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        resource.update({name: stamp for name in ("updated", "timeCreated") if name in resource})


class LabBucket(FakeBucket):
    """A `FakeBucket` that lives on the lab's time. `between` comes in front of each client's adapter."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__()
        self._now = now
        self._written: dict[str, datetime] = {}
        self.between: Through | None = None

    def __enter__(self) -> LabBucket:
        super().__enter__()
        return self

    def client(self) -> Any:
        client = super().client()
        adapter: BaseAdapter = BucketClock(self._now, self._written)
        if self.between:
            self.between.inner = adapter
            adapter = self.between
        client._http.mount("http://", adapter)
        return client

    def keep_versions(self) -> None:
        keep_versions(self)


def keep_versions(fake: FakeBucket) -> None:
    """Deleted and replaced objects stay as noncurrent versions, as in the Terraform module's bucket."""
    bucket = fake.client().get_bucket(fake.name)
    bucket.versioning_enabled = True
    bucket.patch()
