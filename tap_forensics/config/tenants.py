"""Many TAP tenants: which one a message asks for, and what is its own: credentials, prefixes and state.

A tenant is a file TENANTS_DIR/NAME/credentials.json and a name; all other settings are the function's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from tap_forensics.config import validators as allowed
from tap_forensics.config.settings import Settings, load_settings
from tap_forensics.config.state_location import state_location
from tap_forensics.errors import InvalidSettings
from tap_forensics.log import escape_unprintable

CREDENTIALS_FILE = "credentials.json"
# While the other variables are checked.
_NOBODYS_CREDENTIALS = {
    "TAP_PRINCIPAL": "-",
    "TAP_SECRET": "-",
    "TAP_PRINCIPAL_FILE": "",
    "TAP_SECRET_FILE": "",
}
# Such a name is a folder's, a label's and a resource's, each as it stands: https://www.rfc-editor.org/rfc/rfc1123
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_SHOWN_CHARACTERS = 80


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
    """The tenant that a Pub/Sub event's data asks for; None is the single one: `{}`, or an empty body.

    Raises `SettingsFault` for any other body, and for a name that is no plain label. Without TENANTS_DIR a
    body that does not speak of a tenant means "run", whatever it is, as for the published function.
    """
    if not (environ.get("TENANTS_DIR", "").strip() or _speaks_of_a_tenant(event)):
        return None
    try:
        body = _body(event)
        tenant = msgspec.json.decode(body.strip() or b"{}", type=_Body).tenant
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidSettings(
            [f'the message {_shown(event)} is refused: give {{}} or {{"tenant": "NAME"}}']
        ) from None
    return None if tenant is msgspec.UNSET else checked_name(tenant)


def _speaks_of_a_tenant(event: Any) -> bool:
    try:
        return b'"tenant"' in _body(event).lower()
    except msgspec.MsgspecError:
        return False


def _body(event: Any) -> bytes:
    return msgspec.convert(event or {}, _Event).message.data or b""


def checked_name(tenant: str) -> str:
    """The name itself. Raises `SettingsFault` unless it is a plain label: then paths may be made from it."""
    if _NAME.fullmatch(tenant):
        return tenant
    raise InvalidSettings(
        [
            f"tenant '{escape_unprintable(tenant, _SHOWN_CHARACTERS)}' is refused: give lower-case letters, "
            "digits and hyphens, 63 at most, the first of them no hyphen"
        ]
    )


def load_tenant(environ: Mapping[str, str], tenant: str | None) -> Settings:
    """What a run for this tenant needs to know; None: `load_settings` alone. Raises `SettingsFault`."""
    if tenant is None:
        return load_settings(environ)
    own = load_places(environ, tenant)
    principal, secret = _credentials(environ, tenant)
    return replace(own, tap=replace(own.tap, principal=principal, secret=secret))


def load_places(environ: Mapping[str, str], tenant: str | None) -> Settings:
    """As `load_tenant`, without credentials for TAP: these need not be there, and are not read."""
    shared = load_settings({**environ, **_NOBODYS_CREDENTIALS})
    return shared if tenant is None else _own_places(shared, checked_name(tenant))


def _own_places(shared: Settings, tenant: str) -> Settings:
    """The tenant's folders, below the shared ones; its state lies below no feed's, not another's either."""
    if not shared.bucket.prefix:
        raise InvalidSettings(
            ["GCS_PREFIX is empty: tenants need a folder to lie side by side in, such as tap-forensics"]
        )
    folder, _, file = shared.bucket.state_key.rpartition("/")
    own_key = "/".join(filter(None, [folder, tenant, file]))
    wanted = replace(shared, bucket=replace(shared.bucket, state_key=own_key))
    prefix = f"{shared.bucket.prefix}/{tenant}"
    events_prefix = shared.events.prefix and f"{shared.events.prefix}/{tenant}"
    return replace(
        shared,
        tenant=tenant,
        bucket=replace(shared.bucket, prefix=prefix, state_key=state_location(wanted).name),
        events=replace(shared.events, prefix=events_prefix),
    )


def _credentials(environ: Mapping[str, str], tenant: str) -> tuple[str, str]:
    """Principal and secret as the mounted file has them now; nothing of it is in a fault."""
    file = f"TENANTS_DIR/{tenant}/{CREDENTIALS_FILE}"
    folder = environ.get("TENANTS_DIR", "").strip()
    if not folder:
        raise InvalidSettings([f"tenant '{tenant}' is asked for, and TENANTS_DIR is not set"])
    try:
        content = Path(folder, tenant, CREDENTIALS_FILE).read_bytes().strip()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidSettings([f"tenant '{tenant}' is unknown: there is no {file}"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path"
        raise InvalidSettings([f"{file} cannot be read ({reason}): check the mounted secret"]) from None
    if not content:
        raise InvalidSettings([f"{file} is empty: add a version to the mounted secret"])
    return _parsed(content, file)


def _parsed(content: bytes, file: str) -> tuple[str, str]:
    try:
        found = msgspec.json.decode(content, type=_Credentials)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        wanted = '{"principal": "…", "secret": "…"}'
        raise InvalidSettings([f"{file} is not as it should be: give {wanted}"]) from None
    faults: list[str] = []
    pair = (
        _field("principal", found.principal, allowed.principal, file, faults),
        _field("secret", found.secret, allowed.secret, file, faults),
    )
    if faults:
        raise InvalidSettings(faults)
    return pair


def _field(name: str, text: str, parse: Callable[[str], str], file: str, faults: list[str]) -> str:
    try:
        if text.strip():
            return parse(text.strip())
        faults.append(f"{name} in {file} is empty: add a version to the mounted secret")
    except ValueError as wanted:
        faults.append(f"{name} in {file} is not allowed: give {wanted}")
    return ""


def _shown(event: Any) -> str:
    """The text of a refused message, harmless and cut, where it has one."""
    try:
        return f"'{escape_unprintable(_body(event).decode('utf-8', 'replace'), _SHOWN_CHARACTERS)}'"
    except msgspec.MsgspecError:
        return "(not from Pub/Sub)"
