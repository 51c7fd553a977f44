"""The Cloud Run entry point: a Pub/Sub CloudEvent starts one run. Everything else is in tap_forensics."""

from __future__ import annotations

import os

import functions_framework
from cloudevents.http import CloudEvent
from flask import has_request_context, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import InternalServerError, ServiceUnavailable

from tap_forensics.clock import Clock
from tap_forensics.collect import collect
from tap_forensics.config.tenants import load_tenant, requested_tenant
from tap_forensics.errors import InvalidSettings, LeaseHeld, RunFailed
from tap_forensics.log import run_log
from tap_forensics.process import tune_allocator
from tap_forensics.storage.bucket import open_client

# Once, at import: what is frozen later might be garbage, and would never be collected.
tune_allocator()


@functions_framework.cloud_event
def main(event: CloudEvent) -> None:
    """One run an event, for the tenant that its message names. What is wrong in message or settings is
    logged and acknowledged: asking again would not mend it.
    """
    headers = request.headers if has_request_context() else Headers()
    log = run_log(os.environ, headers)
    try:
        tenant = requested_tenant(event.get_data(), os.environ)
        log = run_log(os.environ, headers, tenant)
        settings = load_tenant(os.environ, tenant)
    except InvalidSettings as fault:
        log.error("%s", fault)
        return
    try:
        collect(settings, open_client, Clock(), log)
    except LeaseHeld as store:
        # Its holder seems to have died: when Pub/Sub delivers the event again, the lease may be free.
        raise ServiceUnavailable(str(store)) from store
    except RunFailed as failure:
        # Logged already; an HTTP error needs no traceback, and lets Pub/Sub deliver the event again.
        raise InternalServerError(str(failure)) from failure
