"""Several TAP tenants: which one a message names, and its own credentials, prefixes and state.

A tenant is a name and a file TENANTS_DIR/NAME/credentials.json; all other settings are shared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from tap_forensics.config import validators
from tap_forensics.config.settings import Settings, load_settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import InvalidCredentials, InvalidSettings
from tap_forensics.log import escape_unprintable

CREDENTIALS_FILE = "credentials.json"
# Placeholders, so that the other variables can be checked.
_NO_CREDENTIALS = {
    "TAP_PRINCIPAL": "-",
    "TAP_SECRET": "-",
    "TAP_PRINCIPAL_FILE": "",
    "TAP_SECRET_FILE": "",
}
# A name that is valid for a folder, a label and a resource (RFC 1123): https://www.rfc-editor.org/rfc/rfc1123
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_MAX_SHOWN_CHARACTERS = 80


class _Message(msgspec.Struct):
    """https://cloud.google.com/pubsub/docs/reference/rest/v1/PubsubMessage: `data` is in Base64."""

    data: bytes | None = None


class _Event(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    tenant: str | msgspec.UnsetType = msgspec.UNSET


class _Credentials(msgspec.Struct):
    principal: str
    secret: str


def requested_tenant(event: Any, environ: Mapping[str, str]) -> str | None:
    """The tenant that a Pub/Sub event's data names; None for `{}` or an empty body: no tenant.

    Raises `InvalidSettings` for any other body, and for a name that is not a valid label. Without TENANTS_DIR
    any body that does not mention a tenant means "run", as for the published function.
    """
    if not (environ.get("TENANTS_DIR", "").strip() or _mentions_tenant(event)):
        return None
    try:
        body = _body(event)
        tenant = msgspec.json.decode(body.strip() or b"{}", type=_Body).tenant
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidSettings(
            [f'the message {_safe_body(event)} is refused: give {{}} or {{"tenant": "NAME"}}']
        ) from None
    return None if tenant is msgspec.UNSET else checked_name(tenant)


def _mentions_tenant(event: Any) -> bool:
    try:
        return b'"tenant"' in _body(event).lower()
    except msgspec.MsgspecError:
        return False


def _body(event: Any) -> bytes:
    return msgspec.convert(event or {}, _Event).message.data or b""


def checked_name(tenant: str) -> str:
    """The name, if it is a valid label and so safe in a path. Raises `InvalidSettings` if not."""
    if _NAME.fullmatch(tenant):
        return tenant
    raise InvalidSettings(
        [
            f"tenant '{escape_unprintable(tenant, _MAX_SHOWN_CHARACTERS)}' is refused: give at most 63 "
            "lower-case letters, digits and hyphens, not starting with a hyphen"
        ]
    )


def load_tenant(environ: Mapping[str, str], tenant: str | None) -> Settings:
    """The settings of a run for this tenant; with None those of `load_settings`. Raises `InvalidSettings`."""
    if tenant is None:
        return load_settings(environ)
    settings = load_places(environ, tenant)
    principal, secret = _credentials(environ, tenant)
    return replace(settings, tap=replace(settings.tap, principal=principal, secret=secret))


def load_places(environ: Mapping[str, str], tenant: str | None) -> Settings:
    """As `load_tenant`, but without TAP credentials: they are not read and may be missing."""
    shared = load_settings({**environ, **_NO_CREDENTIALS})
    return shared if tenant is None else _with_own_places(shared, checked_name(tenant))


def _with_own_places(shared: Settings, tenant: str) -> Settings:
    """The tenant's folders, below the shared ones; its state is in no folder that any tenant's feed reads."""
    if not shared.bucket.prefix:
        raise InvalidSettings(
            ["GCS_PREFIX is empty: the tenants' folders need one above them, such as tap-forensics"]
        )
    folder, _, file = shared.bucket.state_key.rpartition("/")
    own_key = "/".join(filter(None, [folder, tenant, file]))
    with_own_key = replace(shared, bucket=replace(shared.bucket, state_key=own_key))
    prefix = f"{shared.bucket.prefix}/{tenant}"
    events_prefix = shared.events.prefix and f"{shared.events.prefix}/{tenant}"
    summaries_prefix = shared.summaries.prefix and f"{shared.summaries.prefix}/{tenant}"
    return replace(
        shared,
        tenant=tenant,
        bucket=replace(shared.bucket, prefix=prefix, state_key=state_location(with_own_key).name),
        events=replace(shared.events, prefix=events_prefix),
        summaries=replace(shared.summaries, prefix=summaries_prefix),
    )


def _credentials(environ: Mapping[str, str], tenant: str) -> tuple[str, str]:
    """Principal and secret from the mounted file; no fault contains any of its content."""
    file = f"TENANTS_DIR/{tenant}/{CREDENTIALS_FILE}"
    folder = environ.get("TENANTS_DIR", "").strip()
    if not folder:
        raise InvalidSettings([f"tenant '{tenant}' was requested, but TENANTS_DIR is not set"])
    try:
        content = Path(folder, tenant, CREDENTIALS_FILE).read_bytes().strip()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidSettings([f"tenant '{tenant}' is unknown: there is no {file}"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "invalid path"
        raise InvalidCredentials([f"{file} cannot be read ({reason}): check the mounted secret"]) from None
    if not content:
        raise InvalidCredentials([f"{file} is empty: add a version to the mounted secret"])
    return _parse(content, file)


def _parse(content: bytes, file: str) -> tuple[str, str]:
    try:
        credentials = msgspec.json.decode(content, type=_Credentials)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        shape = '{"principal": "…", "secret": "…"}'
        raise InvalidCredentials([f"{file} is not valid: give {shape}"]) from None
    faults: list[str] = []
    pair = (
        _checked("principal", credentials.principal, validators.principal, file, faults),
        _checked("secret", credentials.secret, validators.secret, file, faults),
    )
    if faults:
        raise InvalidCredentials(faults)
    return pair


def _checked(name: str, text: str, parse: Callable[[str], str], file: str, faults: list[str]) -> str:
    try:
        if text.strip():
            return parse(text.strip())
        faults.append(f"{name} in {file} is empty: add a version to the mounted secret")
    except ValueError as allowed:
        faults.append(f"{name} in {file} is not allowed: give {allowed}")
    return ""


def _safe_body(event: Any) -> str:
    """The body of a refused message, truncated and with unprintable characters escaped, if it has one."""
    try:
        return f"'{escape_unprintable(_body(event).decode('utf-8', 'replace'), _MAX_SHOWN_CHARACTERS)}'"
    except msgspec.MsgspecError:
        return "(not from Pub/Sub)"
