from __future__ import annotations

import os
from operator import attrgetter

import pytest

from tap_forensics.config.settings import VARIABLES, Settings, load_settings
from tests.support.settings import PRINCIPAL, REQUIRED, SECRET, make_settings
from tests.support.settings_faults import fault_of, faults_of

RANGES = {
    "LOOKBACK_HOURS": (1, 87_600),
    "MAX_THREATS": (1, 1_000_000),
    "OVERLAP_MINUTES": (0, 1440),
    "END_LAG_SECONDS": (0, 3570),
    "DEDUP_HOURS": (0, 168),
    "FETCH_CONCURRENCY": (1, 64),
    "RUN_BUDGET_SECONDS": (5, 3540),
    "LEASE_SECONDS": (1, 3600),
    "TAP_SIEM_DAILY_LIMIT": (1, 1_000_000),
    "TAP_FORENSICS_DAILY_LIMIT": (1, 1_000_000),
    "TAP_CAMPAIGN_FORENSICS_DAILY_LIMIT": (1, 1_000_000),
}
WORDS = {"CAMPAIGN_REPORTS": ["once", "every"], "RECORD_SHAPE": ["report", "response"]}
DEFAULTS = {
    "gcs_bucket": "demo-bucket",
    "gcs_prefix": "tap-forensics",
    "state_key": "tap-forensics/state.json",
    "tap_principal": PRINCIPAL,
    "tap_secret": SECRET,
    "tap_api_base": "https://tap-api-v2.proofpoint.com",
    "lookback_hours": 1,
    "max_threats": 500,
    "overlap_minutes": 60,
    "end_lag_seconds": 60,
    "dedup_hours": 24,
    "campaign_reports": "once",
    "campaign_first": "auto",
    "record_shape": "report",
    "fetch_concurrency": 8,
    "run_budget_seconds": 480,
    "lease_seconds": 180,
    "tap_siem_daily_limit": 1800,
    "tap_forensics_daily_limit": None,
    "tap_campaign_forensics_daily_limit": None,
    "https_proxy": None,
    "no_proxy": "",
    "events_prefix": None,
    "summaries_prefix": None,
    "events_shape": "api",
    "forensics": True,
    "since_time": None,
    "threat_status": (),
    "threat_type": (),
    "tenant": None,
}


def by_variable(settings: Settings) -> dict[str, object]:
    """The value of each variable, wherever it is in the groups."""
    values = {v.name.lower(): attrgetter(v.setting)(settings) for v in VARIABLES if v.setting}
    return values | {"tenant": settings.tenant}


def test_the_required_variables_are_enough_and_the_rest_has_its_default() -> None:
    assert by_variable(load_settings(REQUIRED)) == DEFAULTS


def test_nothing_of_the_real_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable.name, "3")
    assert by_variable(load_settings(REQUIRED)) == DEFAULTS


@pytest.mark.parametrize("name", RANGES)
def test_a_number_is_allowed_up_to_both_ends_of_its_range(name: str) -> None:
    low, high = RANGES[name]
    for number in (low, high):
        assert by_variable(make_settings(**{name: str(number)}))[name.lower()] == number


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize(
    "text", ["below", "above", "-1", "+5", "1.5", "1e3", "0x10", "five", "٣", "1 000", "9" * 30]
)
def test_a_number_outside_its_range_is_refused_with_the_range(name: str, text: str) -> None:
    low, high = RANGES[name]
    given = {"below": str(low - 1), "above": str(high + 1)}.get(text, text)
    expected = f"{name}={given!a} is not allowed: give a whole number from {low} to {high}"
    assert fault_of(**{name: given}) == expected


@pytest.mark.parametrize(("name", "words"), WORDS.items())
def test_a_choice_is_one_of_its_words_exactly(name: str, words: list[str]) -> None:
    for word in words:
        assert by_variable(make_settings(**{name: word}))[name.lower()] == word
        wrong = word.upper()
        expected = f"{name}={wrong!r} is not allowed: give {' or '.join(words)}"
        assert fault_of(**{name: wrong}) == expected


@pytest.mark.parametrize("name", ["my-tap-logs", "a.b_c-1", "a" * 222, "123"])
def test_a_bare_bucket_name_is_allowed(name: str) -> None:
    assert make_settings(GCS_BUCKET=name).bucket.name == name


@pytest.mark.parametrize(
    "name", ["gs://my-tap-logs", "my-tap-logs/folder", "My-Logs", "ab", "-abc", "a" * 223, "a\tb"]
)
def test_anything_else_as_a_bucket_is_refused(name: str) -> None:
    assert "give the bare name of a bucket, such as my-tap-logs" in fault_of(GCS_BUCKET=name)


@pytest.mark.parametrize(
    ("given", "prefix", "key"),
    [
        ("logs", "logs", "logs/state.json"),
        ("/logs/tap/", "logs/tap", "logs/tap/state.json"),
        (" logs ", "logs", "logs/state.json"),
        ("", "", "state.json"),
        ("/", "", "state.json"),
        ("  ", "", "state.json"),
        ("ünï code", "ünï code", "ünï code/state.json"),
    ],
)
def test_the_state_lies_under_the_trimmed_prefix_by_default(given: str, prefix: str, key: str) -> None:
    settings = make_settings(GCS_PREFIX=given)
    assert (settings.bucket.prefix, settings.bucket.state_key) == (prefix, key)


@pytest.mark.parametrize("given", ["a//b", "a\nb", "a" * 513, "ü" * 257])
def test_a_prefix_that_the_feed_could_not_read_is_refused_once(given: str) -> None:
    assert "give a folder path without empty parts (//) or control characters" in fault_of(GCS_PREFIX=given)


@pytest.mark.parametrize("given", ["folder/", "a\x00b", "x" * 1001])
def test_a_state_key_that_is_no_object_name_is_refused(given: str) -> None:
    assert "give an object name without control characters or a closing slash" in fault_of(STATE_KEY=given)


def test_an_own_state_key_does_not_depend_on_the_prefix() -> None:
    assert (
        make_settings(GCS_PREFIX="logs", STATE_KEY="elsewhere/s.json").bucket.state_key == "elsewhere/s.json"
    )


def test_blank_variables_count_as_unset() -> None:
    blanks = {variable.name: " \t" for variable in VARIABLES if variable.name != "GCS_PREFIX"}
    assert by_variable(load_settings(blanks | REQUIRED)) == DEFAULTS


def test_space_around_a_value_is_no_part_of_it() -> None:
    settings = make_settings(MAX_THREATS=" 7 ", GCS_BUCKET="\tdemo-bucket\n")
    assert (settings.forensics.max_threats, settings.bucket.name) == (7, "demo-bucket")


@pytest.mark.parametrize(
    "given",
    [
        "https://tap.example.com",
        "https://tap.example.com:8443/base/",
        "http://127.0.0.1:80",
        "http://localhost:1",
        "http://[::1]:9",
    ],
)
def test_https_anywhere_and_http_on_loopback_may_be_the_api(given: str) -> None:
    assert make_settings(TAP_API_BASE=given).tap.api_base == given.rstrip("/")


@pytest.mark.parametrize(
    "given",
    [
        "http://tap.example.com",
        "http://127.0.0.1.example.com",
        "http://192.0.2.1",
        "ftp://tap.example.com",
        "tap.example.com",
        "https://",
        "https://user:pw@tap.example.com",
        "https://tap.example.com?x=1",
        "https://tap.example.com/?",
        "https://tap.example.com/#",
        "https://tap.example.com/#there",
        "https://tap.example.com:99999",
        "https://[::1",
        "https://täp.example.com",
    ],
)
def test_any_other_address_of_the_api_is_refused(given: str) -> None:
    assert "TAP_API_BASE=" in fault_of(TAP_API_BASE=given)


@pytest.mark.parametrize(
    "given",
    [
        "https://tap .example.com",
        "https://tap.example.com%zz",
        "https://tap.example.com\x7f",
        "https://[::1]x",
    ],
)
def test_an_address_that_no_request_could_be_sent_to_is_refused(given: str) -> None:
    assert "TAP_API_BASE=" in fault_of(TAP_API_BASE=given)


def test_missing_variables_are_named_in_the_published_words_with_the_remedy() -> None:
    assert faults_of({}) == [
        "Error: Missing required environment variables: GCS_BUCKET, TAP_PRINCIPAL, TAP_SECRET "
        "(or TAP_PRINCIPAL_FILE, TAP_SECRET_FILE with the path of a mounted secret)"
    ]


def test_a_missing_bucket_alone_has_no_mounted_secret_as_its_remedy() -> None:
    given = {"TAP_PRINCIPAL": PRINCIPAL, "TAP_SECRET": SECRET}
    assert faults_of(given) == ["Error: Missing required environment variables: GCS_BUCKET"]


def test_every_fault_is_named_in_one_error() -> None:
    wrong = dict.fromkeys(RANGES, "no number") | dict.fromkeys(WORDS, "neither")
    wrong |= {"TAP_API_BASE": "ftp://x", "HTTPS_PROXY": "socks5://x", "STATE_KEY": "x/", "GCS_PREFIX": "a//b"}
    faults = faults_of(wrong)
    assert faults[0].startswith(
        "Error: Missing required environment variables: GCS_BUCKET, TAP_PRINCIPAL, TAP_SECRET"
    )
    assert {fault.partition("=")[0] for fault in faults[1:]} == set(wrong)


def test_a_long_wrong_value_is_shown_cut_and_escaped() -> None:
    fault = fault_of(MAX_THREATS="\u202e" + "x" * 10_000)
    assert len(fault) < 300
    assert fault.isascii()


def test_a_missing_variable_is_named_even_where_another_value_holds_its_name() -> None:
    environ = {"GCS_BUCKET": "demo-bucket", "TAP_PRINCIPAL_FILE": "/nowhere/TAP_SECRET_FILE"}
    assert any("Missing required environment variables: TAP_SECRET" in fault for fault in faults_of(environ))


def test_bytes_that_are_no_text_in_the_environment_are_a_fault_and_no_crash() -> None:
    odd = os.fsdecode(b"\xff")
    wrong = {variable.name: odd for variable in VARIABLES if variable.name != "NO_PROXY"}
    del wrong["TAP_PRINCIPAL_FILE"], wrong["TAP_SECRET_FILE"]
    assert len(faults_of(wrong)) == len(wrong)
