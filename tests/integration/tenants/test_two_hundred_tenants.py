"""200 tenants whose messages are published at once, a container each up to N: all delivered, all apart."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.gcs import FakeBucket
from tap_forensics.sandbox.tap_api import utc_now
from tests.support.fleet import Deliveries, Fleet, mount, mount_one
from tests.support.tenants_api import Tenant, TenantsApi, make_tenants

COUNT, CONTAINERS = 200, 16
NAMES = [f"customer-{number:03}" for number in range(COUNT)]
REFUSED, HANGING, CORRUPT = NAMES[7], NAMES[42], NAMES[99]
UNHARMED = [name for name in NAMES if name not in (REFUSED, HANGING, CORRUPT)]
GARBAGE = b'{"version": 1, "backlog": '
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LABELS = "logging.googleapis.com/labels"


class Scene:
    """Everything that ran, as it stood after two publications: with three tenants in trouble, and without."""

    def __init__(self, tenants: dict[str, Tenant], api: TenantsApi, bucket: FakeBucket, fleet: Fleet) -> None:
        self.tenants, self.api, self.bucket, self.fleet = tenants, api, bucket, fleet
        self.first, self.second = Deliveries(), Deliveries()
        self.after_first: dict[str, bytes] = {}
        self.after_second: dict[str, bytes] = {}
        self._threats = {threat for tenant in tenants.values() for threat in tenant.world.threats}

    def named_in(self, data: bytes) -> set[str]:
        """Every tenant's threats that an object names."""
        return set(re.findall(r"[0-9a-f]{64}", data.decode(errors="replace"))) & self._threats


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("tenants")
    tenants = make_tenants(NAMES, utc_now())
    mount(folder, tenants.values())
    with TenantsApi(tenants) as api, FakeBucket("tenants") as bucket:
        env = {
            "K_SERVICE": "tap-forensics-collector",
            "GCS_BUCKET": bucket.name,
            "STATE_KEY": "state/tap-forensics/state.json",
            "EVENTS_PREFIX": "tap-siem",
            "STORAGE_EMULATOR_HOST": bucket.url,
            "TAP_API_BASE": api.url,
            "TENANTS_DIR": str(folder),
            # For the one that hangs; the others need a second each, and on a busy machine some.
            "RUN_BUDGET_SECONDS": "16",
        }
        with Fleet(env, CONTAINERS) as fleet:
            scene = Scene(tenants, api, bucket, fleet)
            mount_one(folder, REFUSED, tenants[REFUSED].api.principal, "revoked")
            api.faults.add(tenants[HANGING].asks, Fault("hang", times=None))
            bucket.put(state_of(CORRUPT), GARBAGE)
            scene.first = fleet.publish(NAMES)
            scene.after_first = bucket.objects()
            mount_one(folder, REFUSED, tenants[REFUSED].api.principal, tenants[REFUSED].api.secret)
            api.faults.clear()
            bucket.delete(state_of(CORRUPT))
            scene.second = fleet.publish([REFUSED, HANGING, CORRUPT])
            scene.after_second = bucket.objects()
        yield scene


def state_of(name: str) -> str:
    return f"state/tap-forensics/{name}/state.json"


def threats_delivered(objects: dict[str, bytes], name: str) -> list[str]:
    """The ids of all threat reports in a tenant's folder, one for each time that one lies there."""
    evidence = [data for key, data in objects.items() if key.startswith(f"tap-forensics/{name}/")]
    lines = [json.loads(line) for data in evidence for line in data.splitlines()]
    return sorted(line["_threatId"] for line in lines if line["scope"] == "THREAT")


def test_every_message_is_answered_and_only_failed_ones_are_delivered_again(scene: Scene) -> None:
    troubled = {REFUSED: [500, 500], CORRUPT: [500, 500]}
    assert scene.first.statuses == {name: troubled.get(name, [200]) for name in NAMES}
    assert scene.second.statuses == {name: [200] for name in (REFUSED, HANGING, CORRUPT)}


def test_every_unharmed_tenant_has_its_evidence_and_its_events_and_nothing_else(scene: Scene) -> None:
    for name in UNHARMED:
        assert threats_delivered(scene.after_first, name) == sorted(scene.tenants[name].world.threats)
        events = [data for key, data in scene.after_first.items() if key.startswith(f"tap-siem/{name}/")]
        assert scene.named_in(b"".join(events)) == set(scene.tenants[name].world.threats)


def test_those_in_trouble_wrote_nothing_and_a_corrupt_state_stays_as_it_was(scene: Scene) -> None:
    for name in (REFUSED, HANGING, CORRUPT):
        assert threats_delivered(scene.after_first, name) == []
    assert scene.after_first[state_of(CORRUPT)] == GARBAGE


def test_once_their_trouble_is_over_they_have_everything_too(scene: Scene) -> None:
    for name in (REFUSED, HANGING, CORRUPT):
        assert threats_delivered(scene.after_second, name) == sorted(scene.tenants[name].world.threats)


def test_nothing_lies_outside_the_tenants_own_folders_and_nothing_of_another_inside(scene: Scene) -> None:
    place = re.compile(r"(?:tap-forensics|tap-siem|state/tap-forensics)/(customer-\d{3})/[^/]+")
    for key, data in scene.after_second.items():
        found = place.fullmatch(key)
        assert found, key
        assert scene.named_in(data) <= set(scene.tenants[found[1]].world.threats), key


def test_each_request_has_the_credentials_of_the_tenant_whose_threat_it_asks_for(scene: Scene) -> None:
    asked = [call for call in scene.api.journal if call.threat_id]
    assert {call.threat_id for call in asked} == {
        threat for tenant in scene.tenants.values() for threat in tenant.world.threats
    }
    for call in asked:
        assert call.tenant
        assert call.threat_id in scene.tenants[call.tenant].world.threats


def test_no_connection_carries_two_tenants_credentials(scene: Scene) -> None:
    carried = defaultdict(set)
    for call in scene.api.journal:
        carried[call.connection].add(call.tenant)
    assert len(carried) >= COUNT
    assert [tenants for tenants in carried.values() if len(tenants) > 1] == []


def test_each_container_served_many_tenants_and_each_line_has_its_tenant_s_label(scene: Scene) -> None:
    runs = [sum('"run"' in line for line in server.log) for server in scene.fleet.servers]
    # One that waits for the API that hangs serves few.
    assert sum(count > 1 for count in runs) > len(runs) / 2
    entries = scene.fleet.entries()
    assert {entry[LABELS]["tenant"] for entry in entries} == set(NAMES)
    for entry in entries:
        others = set(re.findall(r"customer-\d{3}", json.dumps(entry))) - {entry[LABELS]["tenant"]}
        assert not others, entry
    finals = [entry for entry in entries if "run" in entry]
    assert len(finals) == COUNT + 2 + 3
    assert all(entry["run"]["tenant"] == entry[LABELS]["tenant"] for entry in finals)


def test_no_secret_is_in_any_log_or_object(scene: Scene) -> None:
    written = "\n".join(data.decode(errors="replace") for data in scene.after_second.values())
    output = "\n".join(line for server in scene.fleet.servers for line in server.log) + written
    assert [name for name in NAMES if f"secret/{name}" in output] == []
    packed = [tenant.authorization.removeprefix("Basic ") for tenant in scene.tenants.values()]
    assert [token for token in packed if token in output] == []
