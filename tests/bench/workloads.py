"""What is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """The first `campaigns * threats_per_campaign` threats belong to a campaign, with its report.

    `ours_only`: measured only for the memory that ours needs.
    """

    name: str
    threats: int
    report_bytes: int
    latency_seconds: float = 0.0
    campaigns: int = 0
    threats_per_campaign: int = 0
    campaign_report_bytes: int = 0
    ours_only: bool = False

    def title(self) -> str:
        parts = [f"{self.threats:,} threats of {self.report_bytes // 1000} KB"]
        if self.campaigns:
            size = self.campaign_report_bytes // 1000
            parts.append(
                f"{self.campaigns} campaigns of {size} KB with {self.threats_per_campaign} threats each"
            )
        parts.append(f"{self.latency_seconds * 1000:.0f} ms an answer")
        return ", ".join(parts)


CAMPAIGNS = Workload(
    "campaigns",
    threats=500,
    report_bytes=40_000,
    latency_seconds=0.1,
    campaigns=5,
    threats_per_campaign=100,
    campaign_report_bytes=400_000,
)
MANY = Workload("many", threats=2_000, report_bytes=40_000)
SMALL = Workload("small", threats=20, report_bytes=4_000, latency_seconds=0.1)
# An hour in which nothing happened: what remains is the state.
IDLE = Workload("idle", threats=0, report_bytes=4_000, latency_seconds=0.1)
# As MANY, with a quarter and twice of its threats.
QUARTER = Workload("quarter", threats=500, report_bytes=40_000, ours_only=True)
DOUBLE = Workload("double", threats=4_000, report_bytes=40_000, ours_only=True)

WORKLOADS = (CAMPAIGNS, MANY, SMALL, IDLE, QUARTER, DOUBLE)
