"""The TAP API's response to a request: credentials, quotas, validation, routes. Uses no sockets."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hmac
import json
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tap_forensics.sandbox import routes
from tap_forensics.sandbox import validation as rules
from tap_forensics.sandbox.http_messages import Request, Response
from tap_forensics.sandbox.messages import stamp
from tap_forensics.sandbox.quota import RollingQuota
from tap_forensics.sandbox.world import EVENT_LISTS, SHOWN_STATUSES, Verdict, World, WorldEvent

# Proofpoint's TAP SIEM API documentation: the endpoints and the lists that each one returns.
SIEM_ROUTES: dict[str, tuple[str, ...]] = {
    "/v2/siem/all": EVENT_LISTS,
    "/v2/siem/issues": ("messagesDelivered", "clicksPermitted"),
    "/v2/siem/messages/delivered": ("messagesDelivered",),
    "/v2/siem/messages/blocked": ("messagesBlocked",),
    "/v2/siem/clicks/permitted": ("clicksPermitted",),
    "/v2/siem/clicks/blocked": ("clicksBlocked",),
}
SIEM_PARAMETERS = {*rules.WINDOW_FORMS, "format", "threatStatus", "threatType"}
FORENSICS_PARAMETERS = {"threatId", "campaignId", "includeCampaignForensics"}
STATUSES = {"active", "cleared", "falsePositive"}
TYPES = {"url", "attachment", "messageText"}
THREAT_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
CAMPAIGN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
NOT_WORTH_PACKING_BYTES = 1000


@dataclass
class TapApi:
    """The API's logic. Every field may be changed while the server runs.

    `clock` returns timezone-aware UTC. `quotas` has the pools of `routes.POOLS`; two pools may share one
    quota. If `gzip` is False, no response is compressed, even if the client accepts it.
    """

    world: World
    principal: str
    secret: str
    clock: Callable[[], datetime]
    quotas: dict[str, RollingQuota]
    refused_calls_count: bool = False
    retry_after: str | None = None
    gzip: bool = True

    def __post_init__(self) -> None:
        self._rng = random.Random(self.world.seed)
        self._lock = threading.Lock()
        self._packed: dict[tuple[Any, bool], bytes] = {}

    def answer(self, request: Request) -> Response:
        """Returns the normal response. Order of checks: credentials, path, method, quota, parameters."""
        if not self._authentic(request.headers.get("authorization", "")):
            return Response(401, b"Unauthorized", {"Content-Type": "text/plain"})
        if not _is_served(request.path):
            return _not_found()
        if request.method != "GET":
            return Response(405, b'{"message":"HTTP 405 Method Not Allowed"}', {"Allow": "GET"})
        now = self.clock()
        if not self._admitted(request.pool, now):
            return Response(429, b"", {"Retry-After": self.retry_after} if self.retry_after else {})
        try:
            return self._routed(request, now)
        except rules.BadRequestError as refusal:
            return Response(400, str(refusal).encode(), {"Content-Type": "text/plain"})

    def pack_reports(self) -> None:
        """Generates and compresses every report in advance, so that measurements do not include that work."""
        for threat in self.world.threats.values():
            body = self.world.forensics_bytes(threat.id, True)
            if body is not None and self.gzip:
                self._packed[(threat, True)] = gzip.compress(body, 1)

    def _authentic(self, header: str) -> bool:
        pair = base64.b64encode(f"{self.principal}:{self.secret}".encode()).decode()
        return hmac.compare_digest(header.encode(), f"Basic {pair}".encode())

    def _admitted(self, pool: str | None, now: datetime) -> bool:
        return pool is None or self.quotas[pool].admit(now, count_refused=self.refused_calls_count)

    def _routed(self, request: Request, now: datetime) -> Response:
        if request.path == routes.FORENSICS:
            return self._forensics(request)
        if request.path.startswith(routes.THREAT_SUMMARY):
            return self._summary(request, now)
        if request.path.startswith(routes.CAMPAIGN):
            return self._campaign_details(request, now)
        return self._siem(request, now)

    def _siem(self, request: Request, now: datetime) -> Response:
        query = _single(request, SIEM_PARAMETERS, repeatable={"threatStatus", "threatType"})
        start, end = rules.asked_window(query, now)
        statuses = _choices(request, "threatStatus", STATUSES) or set(SHOWN_STATUSES)
        types = _choices(request, "threatType", TYPES) or TYPES
        kinds = SIEM_ROUTES[request.path]
        shown = [
            event
            for event in self.world.events_between(start, end, now)
            if event.kind in kinds and self._selected(event, statuses, types)
        ]
        form = query.get("format", "syslog")
        if form == "syslog":
            return _syslog(shown)
        if form != "json":
            raise rules.BadRequestError(f"The format is unknown: {form}")
        return self._listed(request, kinds, shown, end, now)

    def _selected(self, event: WorldEvent, statuses: set[str], types: set[str]) -> bool:
        return not event.threat_ids or any(
            self.world.status_at(name, event.created) in statuses and self.world.threats[name].kind in types
            for name in event.threat_ids
        )

    def _listed(
        self, request: Request, kinds: tuple[str, ...], shown: list[WorldEvent], end: datetime, now: datetime
    ) -> Response:
        """JSON response: events are shuffled. Empty lists may be null or absent; the type may be wrong."""
        with self._lock:
            rng = random.Random(self._rng.random())
        rng.shuffle(shown)
        answer: dict[str, Any] = {"queryEndTime": end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        for kind in kinds:
            bodies = [_as_shown(event, now, rng) for event in shown if event.kind == kind]
            empty = rng.choice(["list", "null", "absent"])
            if bodies or empty != "absent":
                answer[kind] = bodies if bodies or empty == "list" else None
        label = rng.choice(["application/json", "application/json", "text/plain"])
        body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        reason = rng.choice([None, None, ""])
        return dataclasses.replace(self._sent(request, body, label), reason=reason)

    def _sent(self, request: Request, body: bytes, label: str = "application/json") -> Response:
        """200 with the body, compressed if that is worth it and the client accepts it."""
        headers = {"Content-Type": label}
        if not self._packs(request, body):
            return Response(200, body, headers)
        return Response(200, gzip.compress(body, 1), headers | {"Content-Encoding": "gzip"})

    def _packs(self, request: Request, body: bytes) -> bool:
        accepted = request.headers.get("accept-encoding", "")
        return self.gzip and "gzip" in accepted and len(body) > NOT_WORTH_PACKING_BYTES

    def _forensics(self, request: Request) -> Response:
        query = _single(request, FORENSICS_PARAMETERS, repeatable=set())
        if ("threatId" in query) == ("campaignId" in query):
            raise rules.BadRequestError("Exactly one of threatId and campaignId must be given")
        if "campaignId" in query:
            return self._campaign(request, query)
        threat_id = self._threat_id(query["threatId"])
        wish = query.get("includeCampaignForensics", "false")
        if wish not in {"true", "false"}:
            raise rules.BadRequestError("includeCampaignForensics must be true or false")
        return self._threat(request, threat_id, wish == "true")

    def _threat(self, request: Request, threat_id: str, with_campaign: bool) -> Response:
        key = (self.world.threats.get(threat_id), with_campaign)
        headers = {"Content-Type": "application/json"}
        takes = self.gzip and "gzip" in request.headers.get("accept-encoding", "")
        if takes and key in self._packed and threat_id not in self.world.overrides:
            return Response(200, self._packed[key], headers | {"Content-Encoding": "gzip"})
        body = self.world.forensics_bytes(threat_id, with_campaign)
        if body is None:
            return _not_found()
        if not self._packs(request, body):
            return Response(200, body, headers)
        packed = gzip.compress(body, 1)
        if threat_id not in self.world.overrides:
            self._packed[key] = packed
        return Response(200, packed, headers | {"Content-Encoding": "gzip"})

    def _campaign(self, request: Request, query: dict[str, str]) -> Response:
        if "includeCampaignForensics" in query:
            raise rules.BadRequestError("includeCampaignForensics is allowed with threatId only")
        return self._known(request, self.world.campaign_bytes(self._campaign_id(query["campaignId"])))

    def _summary(self, request: Request, now: datetime) -> Response:
        _single(request, set(), repeatable=set())
        return self._known(request, self.world.summary_bytes(self._threat_id(request.asked_id), now))

    def _campaign_details(self, request: Request, now: datetime) -> Response:
        _single(request, set(), repeatable=set())
        return self._known(request, self.world.details_bytes(self._campaign_id(request.asked_id), now))

    def _known(self, request: Request, body: bytes | None) -> Response:
        return _not_found() if body is None else self._sent(request, body)

    # The world may have threats and campaigns of any id: tests check how the client handles unusual ones.
    def _threat_id(self, text: str | None) -> str:
        if text is None or not (text in self.world.threats or THREAT_ID.fullmatch(text)):
            raise rules.BadRequestError("The threatId is malformed")
        return text

    def _campaign_id(self, text: str | None) -> str:
        if text is None or not (text in self.world.members or CAMPAIGN_ID.fullmatch(text)):
            raise rules.BadRequestError("The campaignId is malformed")
        return text


def _is_served(path: str) -> bool:
    return path in SIEM_ROUTES or path == routes.FORENSICS or routes.id_in_path(path) is not None


def _not_found() -> Response:
    return Response(404, b'{"message":"HTTP 404 Not Found"}', {"Content-Type": "application/json"})


def _single(request: Request, known: set[str], repeatable: set[str]) -> dict[str, str]:
    """One string per parameter. Unknown or repeated parameters are a client bug and are rejected."""
    for name, values in request.args.items():
        if name not in known:
            raise rules.BadRequestError(f"The parameter is unknown: {name}")
        if len(values) > 1 and name not in repeatable:
            raise rules.BadRequestError(f"The parameter is given twice: {name}")
    return request.query


def _choices(request: Request, name: str, allowed: set[str]) -> set[str]:
    given = set(request.args.get(name, []))
    if not given <= allowed:
        raise rules.BadRequestError(f"A value of {name} is unknown")
    return given


def _as_shown(event: WorldEvent, now: datetime, rng: random.Random) -> dict[str, Any]:
    """The body as of `now`: parts are shuffled, and a campaign that is not linked yet is null."""
    body = dict(event.body)
    if isinstance(body.get("messageParts"), list):
        body["messageParts"] = rng.sample(body["messageParts"], len(body["messageParts"]))
    if now < event.linked and isinstance(body.get("threatsInfoMap"), list):
        body["threatsInfoMap"] = [_unlinked(entry) for entry in body["threatsInfoMap"]]
    for verdict in event.verdicts:
        if verdict.at <= now:
            body = _judged(body, verdict)
    return body


def _unlinked(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {key: None if key in {"campaignID", "campaignId"} else value for key, value in entry.items()}


def _judged(body: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    """Applies a verdict. A click holds it at the top level, a message in each `threatsInfoMap` entry."""
    if isinstance(body.get("threatsInfoMap"), list):
        entries = [_said(e, verdict) if isinstance(e, dict) else e for e in body["threatsInfoMap"]]
        return body | {"threatsInfoMap": entries}
    return _said(body, verdict) if "threatStatus" in body else body


def _said(entry: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    campaign = "campaignId" if "campaignId" in entry else "campaignID"
    said = {"threatStatus": verdict.status, campaign: verdict.campaign, "threatTime": stamp(verdict.at)}
    return entry | {key: value for key, value in said.items() if value is not None}


def _syslog(shown: list[WorldEvent]) -> Response:
    """The default format, used without `format=json`: one line per event, 204 if there are no events."""
    if not shown:
        return Response(204)
    lines = [
        f'<38>1 {stamp(e.created)} - ProofpointTAP - - [tapmsg@21139 GUID="{e.body.get("GUID")}"]'
        for e in shown
    ]
    return Response(200, "\n".join(lines).encode(), {"Content-Type": "text/plain"})
