"""The Cloud Run entry point: a Pub/Sub CloudEvent starts one run. Everything else is in tap_forensics."""

from __future__ import annotations

import os

import functions_framework
from cloudevents.http import CloudEvent
from flask import has_request_context, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import InternalServerError

from tap_forensics.bucket import open_client
from tap_forensics.clock import Clock
from tap_forensics.collect import collect
from tap_forensics.errors import RunFailed, SettingsFault
from tap_forensics.log import run_log
from tap_forensics.memory import keep_memory_small
from tap_forensics.settings import load_settings

# Once, at import: what is frozen later might be garbage, and would never be collected.
keep_memory_small()


@functions_framework.cloud_event
def main(event: CloudEvent) -> None:  # noqa: ARG001 - any event means: run now
    """One run an event. Wrong settings are logged and acknowledged: asking again would not mend them."""
    log = run_log(os.environ, request.headers if has_request_context() else Headers())
    try:
        settings = load_settings(os.environ)
    except SettingsFault as fault:
        log.error("%s", fault)
        return
    try:
        collect(settings, open_client, Clock(), log)
    except RunFailed as failure:
        # Logged already; an HTTP error needs no traceback, and lets Pub/Sub deliver the event again.
        raise InternalServerError(str(failure)) from failure
