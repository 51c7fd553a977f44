from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_forensics.config.settings import Settings
from tap_forensics.config.state_location import state_location
from tap_forensics.config.tenants import load_tenant
from tap_forensics.errors import InvalidSettings

folders = st.lists(st.sampled_from(["state", "tap", "siem", "acme", "working-state"]), min_size=1, max_size=3)
paths = folders.map("/".join)
NAMES = ("acme", "state", "tap", "siem", "0", "working-state")


@pytest.fixture(scope="module")
def tenants_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tenants")
    for name in NAMES:
        (made / name).mkdir()
        credentials = json.dumps({"principal": name, "secret": name})
        (made / name / "credentials.json").write_text(credentials, encoding="utf-8")
    return made


@given(paths, st.none() | paths, paths.map("{}/state.json".format) | st.just("state.json"))
def test_no_two_tenants_share_a_folder_or_a_state_and_no_state_lies_in_a_feed(
    tenants_dir: Path, evidence: str, events: str | None, key: str
) -> None:
    environ = {"GCS_BUCKET": "demo-bucket", "TENANTS_DIR": str(tenants_dir), "GCS_PREFIX": evidence}
    environ |= {"EVENTS_PREFIX": events or "", "STATE_KEY": key, "TAP_PRINCIPAL": "x", "TAP_SECRET": "x"}
    try:
        single = load_tenant(environ, None)
        tenants = [load_tenant(environ, name) for name in NAMES]
    except InvalidSettings:
        assert events is not None  # the two feeds overlap
        return
    folders = [folder for tenant in tenants for folder in feeds(tenant)]
    assert not [(a, b) for a in folders for b in folders if a is not b and a.startswith(b)]
    states = [state_location(settings).name for settings in (single, *tenants)]
    assert len(set(states)) == len(states)
    assert not [state for state in states if state.startswith((*folders, *feeds(single)))]


def feeds(settings: Settings) -> list[str]:
    return [f"{folder}/" for folder in (settings.bucket.prefix, settings.events.prefix) if folder]
