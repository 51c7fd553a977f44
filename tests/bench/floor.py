"""Contender: the floor. The requests that ours has just made, at its concurrency, bodies read and dropped.

Nothing is unpacked, parsed or written: no client that waits for the same answers can be faster.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import urllib3

from .cost import tell_cost

_OK = 200


def replay(targets: list[str]) -> None:
    """Windows one after the other, then the forensics side by side, as ours does."""
    width = int(os.environ["FETCH_CONCURRENCY"])
    credentials = f"{os.environ['TAP_PRINCIPAL']}:{os.environ['TAP_SECRET']}"
    headers = urllib3.make_headers(basic_auth=credentials, accept_encoding="gzip", user_agent="floor")
    with urllib3.connection_from_url(os.environ["TAP_API_BASE"], maxsize=width) as pool:
        drop = _dropper(pool, headers)
        for target in targets:
            if target.startswith("/v2/siem/"):
                drop(target)
        with ThreadPoolExecutor(width) as workers:
            for _ in workers.map(drop, [t for t in targets if t.startswith("/v2/forensics")]):
                pass


def _dropper(pool: urllib3.HTTPConnectionPool, headers: dict[str, str]) -> Callable[[str], None]:
    def drop(target: str) -> None:
        answer = pool.urlopen("GET", target, headers=headers, retries=False, preload_content=False)
        answer.read(decode_content=False)
        answer.release_conn()
        if answer.status != _OK:
            raise RuntimeError(f"{target} answered {answer.status}")

    return drop


if __name__ == "__main__":
    asked = sys.stdin.read().splitlines()
    tell_cost(lambda: replay(asked))
