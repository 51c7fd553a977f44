from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_hidden_calls() -> Iterator[None]:
    """Each storage client asks for its bucket's metadata in a thread of its own, for traces that nobody
    reads; its retries draw random numbers, of which Hypothesis wants to be the only user.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        yield
