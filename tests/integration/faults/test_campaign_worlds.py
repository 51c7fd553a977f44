"""The worlds of `test_worlds.py` with campaigns first, limits that 429 teaches, and threat summaries."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from tap_forensics.sandbox.faults import Fault
from tap_forensics.sandbox.routes import THREAT_SUMMARY
from tests.integration.faults.test_worlds import Worlds
from tests.support.world_faults import FAULTS, PAGE

pytestmark = pytest.mark.slow

PREFIX = "tap-summaries"
NO_LIMIT = 10_000


class CampaignWorlds(Worlds):
    """At the end each threat has its own report once, and its summary once for each status at most."""

    @initialize(mode=st.sampled_from(["on", "auto"]))
    def campaigns_first(self, mode: str) -> None:
        self.lab.env |= {"SUMMARIES_PREFIX": PREFIX, "CAMPAIGN_FIRST": mode}

    @rule(fault=FAULTS)
    def summaries_are_going_to_fail(self, fault: Fault) -> None:
        if fault.status == 404 and fault.body != PAGE:
            return  # a true answer: there is no such summary
        self.lab.tap.faults.add(THREAT_SUMMARY, fault)

    @rule(
        pool=st.sampled_from(["forensics", "threat_forensics", "campaign_forensics"]),
        limit=st.sampled_from([0, 3, 10, NO_LIMIT]),
    )
    def a_limit_changes(self, pool: str, limit: int) -> None:
        self.lab.tap.quotas[pool].limit = limit

    def summaries(self) -> Counter[str]:
        objects = dict([*self.lab.transferred, *self.lab.evidence().items()])
        lines = [data.splitlines() for name, data in objects.items() if name.startswith(f"{PREFIX}/")]
        return Counter(json.loads(line)["_threatId"] for each in lines for line in each)

    @invariant()
    def no_summary_came_twice_for_one_status(self) -> None:
        verdicts = Counter(
            name for event in self.lab.world.events for name in event.threat_ids for _ in event.verdicts
        )
        assert all(count <= 1 + verdicts[name] for name, count in self.summaries().items())

    def _comes_to_rest(self) -> None:
        for pool in ("forensics", "threat_forensics", "campaign_forensics"):
            self.lab.tap.quotas[pool].limit = NO_LIMIT
        super()._comes_to_rest()
        assert self.summaries().keys() == self.lab.world.threats.keys()
        assert not {"summaries", "failed_campaigns"} & set(self.lab.state())


TestCampaignWorlds = CampaignWorlds.TestCase
TestCampaignWorlds.settings = settings(
    max_examples=15,
    stateful_step_count=14,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
