from __future__ import annotations

from unicodedata import normalize

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tap_forensics.clock import Clock, Deadline
from tap_forensics.config.settings import VARIABLES, load_settings
from tap_forensics.errors import InvalidSettings
from tap_forensics.tap.client import TapClient
from tap_forensics.tap.quota import FORENSICS, SIEM, Quota
from tests.support.settings import REQUIRED

NAMES = [variable.name for variable in VARIABLES if not variable.name.endswith("_FILE")]
anything = st.text(alphabet=st.characters(exclude_categories=[], exclude_characters="\x00"))
one_line = st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), min_size=1)
hosts = st.text(alphabet="abc.-_%[]:@/?#\\ \x7f*0159", max_size=12)


def said(environ: dict[str, str]) -> str:
    """All that a wrong environment makes the collector say."""
    try:
        return repr(load_settings(environ))
    except InvalidSettings as fault:
        return str(fault) + repr(fault)


@given(one_line, st.sampled_from(["", "gs://x"]))
def test_no_word_depends_on_the_secret(secret: str, bucket: str) -> None:
    environ = REQUIRED | {"GCS_BUCKET": bucket or "demo-bucket", "MAX_THREATS": "0" if bucket else "1"}
    assert said(environ | {"TAP_SECRET": secret}) == said(environ)


@given(anything, st.sampled_from(["TAP_SECRET", "TAP_PRINCIPAL"]))
def test_no_word_depends_on_a_credential_that_is_refused(text: str, name: str) -> None:
    refused = f"{text}\x07:"
    assert said(REQUIRED | {name: refused}) == said(REQUIRED | {name: "\x07:"})


@given(one_line)
def test_no_word_depends_on_the_password_of_a_proxy(password: str) -> None:
    def with_proxy(word: str) -> str:
        return said(
            REQUIRED | {"HTTPS_PROXY": f"http://user:{word}@proxy.example.com:3128", "MAX_THREATS": "0"}
        )

    # Such characters, and those that Python takes for them in an address ("℀" is "a/c"), are refused.
    assume(not set(normalize("NFKC", password)) & set("/?#[]@:\\"))
    assert with_proxy(password) == with_proxy("x")


@given(st.dictionaries(st.sampled_from(NAMES), anything))
def test_whatever_is_given_there_are_settings_or_named_faults(environ: dict[str, str]) -> None:
    try:
        load_settings(REQUIRED | environ)
    except InvalidSettings as fault:
        assert fault.faults
        assert all(any(name in sentence for name in NAMES) for sentence in fault.faults)
        assert all(len(sentence) < 1500 and sentence.isprintable() for sentence in fault.faults)


@given(
    st.sets(
        st.sampled_from(
            ["LOOKBACK_HOURS", "MAX_THREATS", "DEDUP_HOURS", "RECORD_SHAPE", "GCS_BUCKET", "TAP_API_BASE"]
        )
    )
)
def test_each_wrong_variable_is_named_once(wrong: set[str]) -> None:
    try:
        load_settings(REQUIRED | dict.fromkeys(wrong, "~"))
    except InvalidSettings as fault:
        assert sorted(sentence.partition("=")[0] for sentence in fault.faults) == sorted(wrong)
    else:
        assert not wrong


@given(anything)
def test_a_prefix_is_trimmed_and_the_state_lies_under_it(given: str) -> None:
    try:
        loaded = load_settings(REQUIRED | {"GCS_PREFIX": given})
    except InvalidSettings:
        return
    assert not loaded.bucket.prefix.startswith("/")
    assert not loaded.bucket.prefix.endswith("/")
    assert "//" not in loaded.bucket.prefix
    assert loaded.bucket.state_key == (
        f"{loaded.bucket.prefix}/state.json" if loaded.bucket.prefix else "state.json"
    )


@settings(max_examples=300)
@given(
    hosts.map("https://".__add__) | hosts.map("http://localhost".__add__),
    hosts.map("http://".__add__) | st.just(""),
)
def test_a_client_can_be_made_for_every_address_that_is_allowed(base: str, proxy: str) -> None:
    try:
        loaded = load_settings(REQUIRED | {"TAP_API_BASE": base, "HTTPS_PROXY": proxy})
    except InvalidSettings:
        return
    clock = Clock()
    with TapClient(loaded, clock, Deadline.after(clock, 1), Quota({}, {SIEM: None, FORENSICS: None})):
        pass
