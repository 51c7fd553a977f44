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
from tap_forensics.log import log_failure, run_log
from tap_forensics.process import tune_allocator
from tap_forensics.storage.bucket import open_client

# At import: objects that are frozen later may be garbage, which would never be collected.
tune_allocator()


@functions_framework.cloud_event
def main(event: CloudEvent) -> None:
    """Starts one run for the tenant that the message names. A wrong message or setting is logged and
    acknowledged, because a second delivery would fail in the same way.
    """
    headers = request.headers if has_request_context() else Headers()
    log = run_log(os.environ, headers)
    try:
        tenant = requested_tenant(event.get_data(), os.environ)
        log = run_log(os.environ, headers, tenant)
        settings = load_tenant(os.environ, tenant)
    except InvalidSettings as error:
        log_failure(log, error)
        return
    try:
        collect(settings, open_client, Clock(), log)
    except LeaseHeld as error:
        # The holder seems to have died: the lease may be free when Pub/Sub delivers the event again.
        raise ServiceUnavailable(str(error)) from error
    except RunFailed as error:
        # Already logged. An HTTP error has no traceback and makes Pub/Sub deliver the event again.
        raise InternalServerError(str(error)) from error
