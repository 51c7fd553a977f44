"""Environment variables → one frozen `Settings`; all faults are found before anything is called."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tap_forensics.config import validators
from tap_forensics.errors import InvalidCredentials, InvalidSettings

MISSING_WORDING = "Error: Missing required environment variables"


@dataclass(frozen=True)
class BucketSettings:
    """`prefix`: the folder of the evidence objects. `state_key`: the state object that the operator named."""

    name: str
    prefix: str
    state_key: str


@dataclass(frozen=True)
class TapSettings:
    """The TAP API: credentials (not in `repr`), limits in calls per 24 hours, filters for events."""

    principal: str = field(repr=False)
    secret: str = field(repr=False)
    api_base: str
    https_proxy: str | None = field(repr=False)
    no_proxy: str
    siem_daily_limit: int
    forensics_daily_limit: int | None
    campaign_forensics_daily_limit: int | None
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
    campaign_first: str
    record_shape: str
    fetch_concurrency: int


@dataclass(frozen=True)
class EventSettings:
    """`prefix` is None if no event lines are wanted."""

    prefix: str | None
    shape: str


@dataclass(frozen=True)
class SummarySettings:
    """`prefix` is None if no threat summaries are wanted."""

    prefix: str | None


@dataclass(frozen=True)
class RunSettings:
    budget_seconds: int
    lease_seconds: int


@dataclass(frozen=True)
class Settings:
    """All settings of one run, in groups; units are in the names.

    `tenant` is None without tenants: prefixes and state are then as in the variables.
    """

    bucket: BucketSettings
    tap: TapSettings
    windows: WindowSettings
    forensics: ForensicsSettings
    events: EventSettings
    summaries: SummarySettings
    run: RunSettings
    tenant: str | None = None

    def feed_folders(self) -> list[str]:
        """The folder of each feed that is in use; an empty one is the whole bucket."""
        folders = (self.bucket.prefix, self.events.prefix, self.summaries.prefix)
        return [folder for folder in folders if folder is not None]


@dataclass(frozen=True)
class Variable:
    """One declared variable: `parse` gets the text and raises ValueError with what is allowed.

    `setting`: the field of `Settings` for its value, as GROUP.FIELD; None if the value is read elsewhere.
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
        "GCS_BUCKET", "bucket.name", None, "the bucket that SecOps reads", validators.bucket, required=True
    ),
    Variable(
        "GCS_PREFIX",
        "bucket.prefix",
        "tap-forensics",
        "folder of the evidence objects; may be empty",
        validators.prefix,
    ),
    Variable(
        "STATE_KEY",
        "bucket.state_key",
        "{GCS_PREFIX}/state.json",
        "name of the state object",
        validators.object_name,
    ),
    Variable(
        "TAP_PRINCIPAL",
        "tap.principal",
        None,
        "TAP service principal",
        validators.principal,
        required=True,
        secret=True,
    ),
    Variable("TAP_SECRET", "tap.secret", None, "its secret", validators.secret, required=True, secret=True),
    Variable("TAP_PRINCIPAL_FILE", None, None, "path of a mounted secret, instead of `TAP_PRINCIPAL`"),
    Variable("TAP_SECRET_FILE", None, None, "path of a mounted secret, instead of `TAP_SECRET`"),
    Variable(
        "TENANTS_DIR",
        None,
        None,
        "folder with a `NAME/credentials.json` for each tenant that a message may name; read by each run",
        validators.folder,
    ),
    Variable(
        "LOOKBACK_HOURS",
        "windows.lookback_hours",
        "1",
        "how far the first run reads back; capped to the API's 7 days",
        validators.int_range(1, 87_600),
    ),
    Variable(
        "MAX_THREATS",
        "forensics.max_threats",
        "500",
        "threats whose forensics one run fetches at most",
        validators.int_range(1, 1_000_000),
    ),
    Variable(
        "TAP_API_BASE",
        "tap.api_base",
        "https://tap-api-v2.proofpoint.com",
        "address of the TAP API; https, or http on a loopback host",
        validators.api_base,
    ),
    Variable(
        "OVERLAP_MINUTES",
        "windows.overlap_minutes",
        "60",
        "how far each run reads back into the last one: TAP indexes events up to about 30 minutes late",
        validators.int_range(0, 1440),
    ),
    # At most: the shortest lookback (1 h) less TAP's shortest window (30 s).
    Variable(
        "END_LAG_SECONDS",
        "windows.end_lag_seconds",
        "60",
        "the last window ends this long before now",
        validators.int_range(0, 3570),
    ),
    Variable(
        "DEDUP_HOURS",
        "forensics.dedup_hours",
        "24",
        "within so many hours a threat is not fetched again; `0`: only within one run, as the published "
        "function (then set `OVERLAP_MINUTES=2` too, or each hour repeats the last)",
        validators.int_range(0, 168),
    ),
    Variable(
        "CAMPAIGN_REPORTS",
        "forensics.campaign_reports",
        "once",
        "`once`: a campaign's report comes once a run; `every`: each time that TAP sends it",
        validators.one_of("once", "every"),
    ),
    Variable(
        "RECORD_SHAPE",
        "forensics.record_shape",
        "report",
        '`report`: the report with `_threatId` and `generated`; `response`: `{"generated":…,"reports":[…]}`',
        validators.one_of("report", "response"),
    ),
    Variable(
        "FETCH_CONCURRENCY",
        "forensics.fetch_concurrency",
        "8",
        "forensics requests in flight",
        validators.int_range(1, 64),
    ),
    Variable(
        "RUN_BUDGET_SECONDS",
        "run.budget_seconds",
        "480",
        "the run ends by itself within this time; keep it a minute below the function's time-out",
        validators.int_range(5, 3540),
    ),
    Variable(
        "LEASE_SECONDS",
        "run.lease_seconds",
        "180",
        "how long a run's lease holds after its last commit; each commit renews it",
        validators.int_range(1, 3600),
    ),
    Variable(
        "TAP_SIEM_DAILY_LIMIT",
        "tap.siem_daily_limit",
        "1800",
        "SIEM calls in any 24 hours",
        validators.int_range(1, 1_000_000),
    ),
    Variable(
        "TAP_FORENSICS_DAILY_LIMIT",
        "tap.forensics_daily_limit",
        None,
        "forensics calls by `threatId` in any 24 hours; unset: learned from 429 responses",
        validators.int_range(1, 1_000_000),
    ),
    Variable(
        "TAP_CAMPAIGN_FORENSICS_DAILY_LIMIT",
        "tap.campaign_forensics_daily_limit",
        None,
        "forensics calls by `campaignId` in any 24 hours; unset: learned from 429 responses",
        validators.int_range(1, 1_000_000),
    ),
    Variable(
        "CAMPAIGN_FIRST",
        "forensics.campaign_first",
        "auto",
        "`auto`: if more threats wait than calls by `threatId` are left, one call by `campaignId` for each "
        "campaign comes first; `on`: always; `off`: never",
        validators.one_of("auto", "on", "off"),
    ),
    Variable(
        "HTTPS_PROXY",
        "tap.https_proxy",
        None,
        "HTTP proxy for TAP, and for nothing else",
        validators.proxy,
        secret=True,
    ),
    Variable("HTTPS_PROXY_FILE", None, None, "path of a mounted secret, instead of `HTTPS_PROXY`"),
    Variable("NO_PROXY", "tap.no_proxy", "", "hosts that are reached without the proxy, separated by commas"),
    Variable(
        "EVENTS_PREFIX",
        "events.prefix",
        None,
        "folder of the SIEM event lines, apart from `GCS_PREFIX`; unset: no event lines are written",
        validators.prefix,
    ),
    Variable(
        "EVENTS_SHAPE",
        "events.shape",
        "api",
        '`api`: `{"messagesDelivered":[{…event…}]}`, as SecOps reads it; `flat`: the event itself',
        validators.one_of("api", "flat"),
    ),
    Variable(
        "SUMMARIES_PREFIX",
        "summaries.prefix",
        None,
        "folder of the threat summaries, apart from the others; unset: no summaries are fetched",
        validators.prefix,
    ),
    Variable(
        "FORENSICS",
        "forensics.enabled",
        "on",
        "`off`: only event lines and summaries; no forensics are fetched",
        validators.on_off,
    ),
    Variable(
        "SINCE_TIME",
        "windows.since_time",
        None,
        "where the first run begins (ISO 8601), instead of `LOOKBACK_HOURS`; ignored if there is a state",
        validators.timestamp,
    ),
    Variable(
        "THREAT_STATUS",
        "tap.threat_status",
        "",
        "only events of threats that are `active`, `cleared`, `falsePositive` (separated by commas); "
        "unset: TAP's default",
        validators.csv("active", "cleared", "falsePositive"),
    ),
    Variable(
        "THREAT_TYPE",
        "tap.threat_type",
        "",
        "only events of threats of type `url`, `attachment`, `messageText` (separated by commas); unset: all",
        validators.csv("url", "attachment", "messageText"),
    ),
)

# Each is one feed's folder.
FEED_FOLDERS = ("GCS_PREFIX", "EVENTS_PREFIX", "SUMMARIES_PREFIX")
_MAY_BE_EMPTY = ("GCS_PREFIX",)
# NAME_FILE may be set instead: the path of a mounted secret.
_MOUNTED = ("TAP_PRINCIPAL", "TAP_SECRET", "HTTPS_PROXY")
_GROUPS: dict[str, Callable[..., Any]] = {
    "bucket": BucketSettings,
    "tap": TapSettings,
    "windows": WindowSettings,
    "forensics": ForensicsSettings,
    "events": EventSettings,
    "summaries": SummarySettings,
    "run": RunSettings,
}
# The storage client sends evidence and state to this address, without credentials.
_EMULATOR = "STORAGE_EMULATOR_HOST"
_LOOPBACK = re.compile(
    r"(?:https?://)?(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?/?", re.ASCII | re.I
)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads and checks all declared variables, and the mounted secrets that they name.

    Raises `InvalidSettings` with all faults: the variable, its value (no credential), what is allowed.
    """
    faults: list[str] = []
    texts = _read_texts(environ, faults)
    values = {variable.name: _parse(variable, texts, faults) for variable in VARIABLES}
    missing = [v.name for v in VARIABLES if v.required and not {v.name, f"{v.name}_FILE"} & texts.keys()]
    if missing:
        faults.insert(0, f"{MISSING_WORDING}: {', '.join(missing)}{_remedy(missing)}")
    faults += [*_feed_faults(values), *_emulator_faults(environ)]
    if faults:
        usable = None not in (values["TAP_PRINCIPAL"], values["TAP_SECRET"])
        raise InvalidSettings(faults) if usable else InvalidCredentials(faults)
    return _group(values)


def _group(values: Mapping[str, Any]) -> Settings:
    fields: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for variable in VARIABLES:
        if variable.setting:
            group, _, name = variable.setting.partition(".")
            fields[group][name] = values[variable.name]
    return Settings(**{group: group_class(**fields[group]) for group, group_class in _GROUPS.items()})


def _feed_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Feeds need separate folders: a feed reads one log type, and everything under its prefix."""
    folders = {name: values[name] for name in FEED_FOLDERS if values[name] is not None}
    if values["FORENSICS"] is False and folders.keys() <= {"GCS_PREFIX"}:
        yield "FORENSICS=off without EVENTS_PREFIX or SUMMARIES_PREFIX leaves nothing to collect: set one"
    for (name, folder), (other_name, other) in itertools.combinations(folders.items(), 2):
        if _contains(folder, other) or _contains(other, folder):
            yield (
                f"{name}={_safe_text(folder)} and {other_name}={_safe_text(other)} overlap: "
                "a feed reads one log type, so give two separate folders, such as tap-forensics and tap-siem"
            )


def _emulator_faults(environ: Mapping[str, str]) -> Iterator[str]:
    """On Cloud Run an emulator address that is not loopback would send evidence to any host."""
    address = environ.get(_EMULATOR, "")
    if "K_SERVICE" in environ and address and not _LOOPBACK.fullmatch(address):
        yield (
            f"{_EMULATOR}={_safe_text(address)} is not allowed on Cloud Run: remove it "
            "(only a loopback address is allowed there, such as http://127.0.0.1:9023)"
        )


def _contains(folder: str, other: str) -> bool:
    return not folder or f"{other}/".startswith(f"{folder}/")


def _read_texts(environ: Mapping[str, str], faults: list[str]) -> dict[str, str]:
    """The texts that are set. Blank ones are unset; files and the proxies' lower-case names are read, too."""
    texts = {
        v.name: environ[v.name].strip()
        for v in VARIABLES
        if environ.get(v.name, "").strip() or (v.name in _MAY_BE_EMPTY and v.name in environ)
    }
    for name in ("HTTPS_PROXY", "NO_PROXY"):
        if name not in texts and environ.get(name.lower(), "").strip():
            texts[name] = environ[name.lower()].strip()
    for name in _MOUNTED:
        if f"{name}_FILE" in texts:
            _read_file(name, texts, faults)
    return texts


def _read_file(name: str, texts: dict[str, str], faults: list[str]) -> None:
    path = texts[f"{name}_FILE"]
    if name in texts:
        faults.append(f"{name} and {name}_FILE are both set: remove one")
        return
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        # Some users paste the secret instead of its path, so the path is not shown.
        faults.append(f"{name}_FILE=(not shown) cannot be read ({reason}): check the mounted secret")
        return
    if text:
        texts[name] = text
    else:
        faults.append(f"{name}_FILE=(not shown) is empty: add a version to the mounted secret")


def _parse(variable: Variable, texts: dict[str, str], faults: list[str]) -> Any:
    text = texts.get(variable.name, variable.default)
    if variable.name == "STATE_KEY" and text == variable.default:
        prefix = texts.get("GCS_PREFIX", "tap-forensics").strip("/")
        return f"{prefix}/state.json".lstrip("/")
    if text is None:
        return None
    try:
        return variable.parse(text)
    except ValueError as allowed:
        value = "(not shown)" if variable.secret else _safe_text(text)
        faults.append(f"{variable.name}={value} is not allowed: give {allowed}")
        return None


def _remedy(missing: list[str]) -> str:
    file_variables = [f"{name}_FILE" for name in missing if name.startswith("TAP_")]
    return f" (or {', '.join(file_variables)} with the path of a mounted secret)" if file_variables else ""


def _safe_text(text: str) -> str:
    """The value, truncated and escaped, without what may be the user part of an address."""
    _, at, rest = text.rpartition("@")
    return ascii(f"(not shown)@{rest}"[:100] if at else text[:100])
