"""For every test of this process."""

from __future__ import annotations

import os

# Else each storage client asks for its bucket on a thread of its own, which outlives the test.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
