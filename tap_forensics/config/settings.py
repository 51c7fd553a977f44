"""Environment variables → one frozen `Settings`; every fault is found before anything is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tap_forensics.config import validators as allowed
from tap_forensics.errors import InvalidSettings

MISSING_WORDING = "Error: Missing required environment variables"


@dataclass(frozen=True)
class BucketSettings:
    """`prefix` is the folder of the evidence objects, `state_key` where the operator wants the state."""

    name: str
    prefix: str
    state_key: str


@dataclass(frozen=True)
class TapSettings:
    """How TAP is reached, and what for. Credentials stay out of `repr`; limits are calls in 24 hours."""

    principal: str = field(repr=False)
    secret: str = field(repr=False)
    api_base: str
    https_proxy: str | None = field(repr=False)
    no_proxy: str
    siem_daily_limit: int
    forensics_daily_limit: int | None
    threat_status: tuple[str, ...]
    threat_type: tuple[str, ...]


@dataclass(frozen=True)
class WindowSettings:
    """Which windows a run plans."""

    lookback_hours: int
    since_time: datetime | None
    overlap_minutes: int
    end_lag_seconds: int


@dataclass(frozen=True)
class ForensicsSettings:
    enabled: bool
    max_threats: int
    dedup_hours: int
    campaign_reports: str
    record_shape: str
    fetch_concurrency: int


@dataclass(frozen=True)
class EventSettings:
    """`prefix` is None if no event lines are wanted."""

    prefix: str | None
    shape: str


@dataclass(frozen=True)
class RunSettings:
    budget_seconds: int
    lease_seconds: int


@dataclass(frozen=True)
class Settings:
    """What one run needs to know, in groups; units are in the names.

    `tenant` is None for the single one, whose prefixes and state are the variables' own.
    """

    bucket: BucketSettings
    tap: TapSettings
    windows: WindowSettings
    forensics: ForensicsSettings
    events: EventSettings
    run: RunSettings
    tenant: str | None = None


@dataclass(frozen=True)
class Variable:
    """One declared variable: `parse` gets the text and raises ValueError saying what is allowed.

    `setting` is where its value goes, as GROUP.FIELD of `Settings`; None if others read it.
    """

    name: str
    setting: str | None
    default: str | None
    meaning: str
    parse: Callable[[str], Any] = str
    required: bool = False
    secret: bool = False


# The one list of them: `load_settings` reads by it, and docs/reference/settings.md shows it.
VARIABLES = (
    Variable(
        "GCS_BUCKET", "bucket.name", None, "the bucket that SecOps reads", allowed.bucket, required=True
    ),
    Variable(
        "GCS_PREFIX",
        "bucket.prefix",
        "tap-forensics",
        "folder of the evidence objects; may be empty",
        allowed.prefix,
    ),
    Variable(
        "STATE_KEY",
        "bucket.state_key",
        "{GCS_PREFIX}/state.json",
        "name of the state object",
        allowed.object_name,
    ),
    Variable(
        "TAP_PRINCIPAL",
        "tap.principal",
        None,
        "TAP service principal",
        allowed.principal,
        required=True,
        secret=True,
    ),
    Variable("TAP_SECRET", "tap.secret", None, "its secret", allowed.secret, required=True, secret=True),
    Variable("TAP_PRINCIPAL_FILE", None, None, "path of a mounted secret, instead of `TAP_PRINCIPAL`"),
    Variable("TAP_SECRET_FILE", None, None, "path of a mounted secret, instead of `TAP_SECRET`"),
    Variable(
        "TENANTS_DIR",
        None,
        None,
        "folder with a `NAME/credentials.json` for each tenant that a message may name; read by each run",
        allowed.folder,
    ),
    Variable(
        "LOOKBACK_HOURS",
        "windows.lookback_hours",
        "1",
        "how far the first run reads back; capped to the API's 7 days",
        allowed.int_range(1, 87_600),
    ),
    Variable(
        "MAX_THREATS",
        "forensics.max_threats",
        "500",
        "threats whose forensics one run fetches at most",
        allowed.int_range(1, 1_000_000),
    ),
    Variable(
        "TAP_API_BASE",
        "tap.api_base",
        "https://tap-api-v2.proofpoint.com",
        "address of the TAP API; https, or http on a loopback host",
        allowed.api_base,
    ),
    Variable(
        "OVERLAP_MINUTES",
        "windows.overlap_minutes",
        "60",
        "how far each run reads back over the last one: TAP indexes events up to about 30 minutes late",
        allowed.int_range(0, 1440),
    ),
    # Of the shortest lookback, an hour, TAP's shortest window of 30 s is left.
    Variable(
        "END_LAG_SECONDS",
        "windows.end_lag_seconds",
        "60",
        "the last window ends this long before now",
        allowed.int_range(0, 3570),
    ),
    Variable(
        "DEDUP_HOURS",
        "forensics.dedup_hours",
        "24",
        "within so many hours a threat is not fetched again; `0`: only within one run, as the published "
        "function (then set `OVERLAP_MINUTES=2` too, or each hour repeats the last)",
        allowed.int_range(0, 168),
    ),
    Variable(
        "CAMPAIGN_REPORTS",
        "forensics.campaign_reports",
        "once",
        "`once`: a campaign's report comes once a run; `every`: each time that TAP sends it",
        allowed.one_of("once", "every"),
    ),
    Variable(
        "RECORD_SHAPE",
        "forensics.record_shape",
        "report",
        '`report`: the report with `_threatId` and `generated`; `response`: `{"generated":…,"reports":[…]}`',
        allowed.one_of("report", "response"),
    ),
    Variable(
        "FETCH_CONCURRENCY",
        "forensics.fetch_concurrency",
        "8",
        "forensics requests in flight",
        allowed.int_range(1, 64),
    ),
    Variable(
        "RUN_BUDGET_SECONDS",
        "run.budget_seconds",
        "480",
        "the run ends by itself within this time; keep it a minute below the function's time-out",
        allowed.int_range(5, 3540),
    ),
    Variable(
        "LEASE_SECONDS",
        "run.lease_seconds",
        "180",
        "how long a run's lease holds after its last commit; each commit renews it",
        allowed.int_range(1, 3600),
    ),
    Variable(
        "TAP_SIEM_DAILY_LIMIT",
        "tap.siem_daily_limit",
        "1800",
        "SIEM calls in any 24 hours",
        allowed.int_range(1, 1_000_000),
    ),
    Variable(
        "TAP_FORENSICS_DAILY_LIMIT",
        "tap.forensics_daily_limit",
        None,
        "forensics calls in any 24 hours; unset: learned from 429 responses",
        allowed.int_range(1, 1_000_000),
    ),
    Variable(
        "HTTPS_PROXY",
        "tap.https_proxy",
        None,
        "HTTP proxy for TAP, and for nothing else",
        allowed.proxy,
        secret=True,
    ),
    Variable("HTTPS_PROXY_FILE", None, None, "path of a mounted secret, instead of `HTTPS_PROXY`"),
    Variable("NO_PROXY", "tap.no_proxy", "", "hosts that are reached without the proxy, separated by commas"),
    Variable(
        "EVENTS_PREFIX",
        "events.prefix",
        None,
        "folder of the SIEM event lines, apart from `GCS_PREFIX`; unset: no event lines are written",
        allowed.prefix,
    ),
    Variable(
        "EVENTS_SHAPE",
        "events.shape",
        "api",
        '`api`: `{"messagesDelivered":[{…event…}]}`, as SecOps reads it; `flat`: the event itself',
        allowed.one_of("api", "flat"),
    ),
    Variable(
        "FORENSICS",
        "forensics.enabled",
        "on",
        "`off`: only event lines; no forensics are fetched and no threat is remembered",
        allowed.on_off,
    ),
    Variable(
        "SINCE_TIME",
        "windows.since_time",
        None,
        "where the first run begins (ISO 8601), instead of `LOOKBACK_HOURS`; ignored if there is a state",
        allowed.timestamp,
    ),
    Variable(
        "THREAT_STATUS",
        "tap.threat_status",
        "",
        "only events of threats that are `active`, `cleared`, `falsePositive` (separated by commas); "
        "unset: TAP's default",
        allowed.csv("active", "cleared", "falsePositive"),
    ),
    Variable(
        "THREAT_TYPE",
        "tap.threat_type",
        "",
        "only events of threats of type `url`, `attachment`, `messageText` (separated by commas); unset: all",
        allowed.csv("url", "attachment", "messageText"),
    ),
)

_MAY_BE_EMPTY = ("GCS_PREFIX",)
# Each may be given by NAME_FILE instead: the path of a mounted secret.
_MOUNTED = ("TAP_PRINCIPAL", "TAP_SECRET", "HTTPS_PROXY")
_GROUPS: dict[str, Callable[..., Any]] = {
    "bucket": BucketSettings,
    "tap": TapSettings,
    "windows": WindowSettings,
    "forensics": ForensicsSettings,
    "events": EventSettings,
    "run": RunSettings,
}
# The storage client sends evidence and state, without any credentials, wherever it points to.
_EMULATOR = "STORAGE_EMULATOR_HOST"
_LOOPBACK = re.compile(
    r"(?:https?://)?(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?/?", re.ASCII | re.I
)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads and checks every declared variable, and the mounted secrets they name.

    Raises `SettingsFault` naming each fault: the variable, what was given (never a credential), what is
    allowed.
    """
    faults: list[str] = []
    texts = _texts(environ, faults)
    values = {variable.name: _value(variable, texts, faults) for variable in VARIABLES}
    missing = [v.name for v in VARIABLES if v.required and not {v.name, f"{v.name}_FILE"} & texts.keys()]
    if missing:
        faults.insert(0, f"{MISSING_WORDING}: {', '.join(missing)}{_remedy(missing)}")
    faults += [*_feed_faults(values), *_emulator_faults(environ)]
    if faults:
        raise InvalidSettings(faults)
    return _grouped(values)


def _grouped(values: Mapping[str, Any]) -> Settings:
    fields: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for variable in VARIABLES:
        if variable.setting:
            group, _, name = variable.setting.partition(".")
            fields[group][name] = values[variable.name]
    return Settings(**{group: made(**fields[group]) for group, made in _GROUPS.items()})


def _feed_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """What two feeds cannot share: one feed reads one log type, and everything below its prefix."""
    evidence, events = values["GCS_PREFIX"], values["EVENTS_PREFIX"]
    if events is None:
        if values["FORENSICS"] is False:
            yield "FORENSICS=off without EVENTS_PREFIX leaves nothing to collect: set EVENTS_PREFIX"
        return
    if evidence is not None and (_contains(evidence, events) or _contains(events, evidence)):
        yield (
            f"GCS_PREFIX={_shown(evidence)} and EVENTS_PREFIX={_shown(events)} contain one another: "
            "a feed reads one log type, so give two folders side by side, such as tap-forensics and tap-siem"
        )


def _emulator_faults(environ: Mapping[str, str]) -> Iterator[str]:
    """On Cloud Run evidence would leave for whatever host the variable names."""
    address = environ.get(_EMULATOR, "")
    if "K_SERVICE" in environ and address and not _LOOPBACK.fullmatch(address):
        yield (
            f"{_EMULATOR}={_shown(address)} is not allowed on Cloud Run: remove it "
            "(only a loopback address is allowed there, such as http://127.0.0.1:9023)"
        )


def _contains(folder: str, other: str) -> bool:
    return not folder or f"{other}/".startswith(f"{folder}/")


def _texts(environ: Mapping[str, str], faults: list[str]) -> dict[str, str]:
    """What was given: blanks count as unset, files are read, the proxies' lower-case names are known."""
    given = {
        v.name: environ[v.name].strip()
        for v in VARIABLES
        if environ.get(v.name, "").strip() or (v.name in _MAY_BE_EMPTY and v.name in environ)
    }
    for name in ("HTTPS_PROXY", "NO_PROXY"):
        if name not in given and environ.get(name.lower(), "").strip():
            given[name] = environ[name.lower()].strip()
    for name in _MOUNTED:
        if f"{name}_FILE" in given:
            _take_file(name, given, faults)
    return given


def _take_file(name: str, given: dict[str, str], faults: list[str]) -> None:
    path = given[f"{name}_FILE"]
    if name in given:
        faults.append(f"{name} and {name}_FILE are both set: remove one")
        return
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        # The path itself is not shown: some paste the secret in its place.
        faults.append(f"{name}_FILE=(not shown) cannot be read ({reason}): check the mounted secret")
        return
    if text:
        given[name] = text
    else:
        faults.append(f"{name}_FILE=(not shown) is empty: add a version to the mounted secret")


def _value(variable: Variable, texts: dict[str, str], faults: list[str]) -> Any:
    text = texts.get(variable.name, variable.default)
    if variable.name == "STATE_KEY" and text == variable.default:
        prefix = texts.get("GCS_PREFIX", "tap-forensics").strip("/")
        return f"{prefix}/state.json".lstrip("/")
    if text is None:
        return None
    try:
        return variable.parse(text)
    except ValueError as allowed:
        given = "(not shown)" if variable.secret else _shown(text)
        faults.append(f"{variable.name}={given} is not allowed: give {allowed}")
        return None


def _remedy(missing: list[str]) -> str:
    mounted = [f"{name}_FILE" for name in missing if name.startswith("TAP_")]
    return f" (or {', '.join(mounted)} with the path of a mounted secret)" if mounted else ""


def _shown(text: str) -> str:
    """What was given, cut and escaped; what may be the user part of an address is taken out."""
    _, at, rest = text.rpartition("@")
    return ascii(f"(not shown)@{rest}"[:100] if at else text[:100])
