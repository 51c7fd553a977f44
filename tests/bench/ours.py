"""Contender: the collector's own run, log lines and all, as `main.py` starts it."""

from __future__ import annotations

import os

from werkzeug.datastructures import Headers

from tap_forensics.clock import Clock
from tap_forensics.collect import collect
from tap_forensics.config.settings import load_settings
from tap_forensics.log import run_log
from tap_forensics.process import tune_allocator
from tap_forensics.storage.bucket import open_client

from .cost import tell_cost


def run() -> None:
    stats = collect(load_settings(os.environ), open_client, Clock(), run_log(os.environ, Headers()))
    if stats.outcome != "complete":
        raise RuntimeError(f"the run ended {stats.outcome}: {stats.reason}")


if __name__ == "__main__":
    tune_allocator()
    tell_cost(run)
