"""For every test of this process."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Else each storage client asks for its bucket on a thread of its own, which outlives the test; its retries
# draw random numbers, of which Hypothesis wants to be the only user.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For `make quick`: enough to notice a slip, not to prove a rule.
settings.register_profile("quick", settings.get_profile("any machine"), max_examples=20)
settings.load_profile("any machine")
