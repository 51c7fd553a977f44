"""quickstart.sh with the real gcloud and a Google Cloud in small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.deploy.facts import FACTS
from tests.deploy.google_cloud import Call, GoogleCloud
from tests.support.tools import CHECKOUT, command

SCRIPT = CHECKOUT / "deploy" / "quickstart.sh"


class Quickstart:
    """The script with a cloud of its own. `output` is what each run of it printed."""

    def __init__(self, cloud: GoogleCloud, folder: Path) -> None:
        self.cloud = cloud
        path = f"{Path(command('gcloud')).parent}:{Path(sys.executable).parent}:{os.defpath}"
        self.env = cloud.environment(folder) | {"PATH": path}
        self.output: list[str] = []

    def run(self, *options: str) -> list[Call]:
        """One run of the script; returns what gcloud asked for meanwhile."""
        before = len(self.cloud.calls)
        ended = self._start(*options)
        self.output.append(ended.stdout)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return self.cloud.calls[before:]

    def refusal(self, *options: str) -> str:
        """What a run says that stops with one sentence."""
        ended = self._start(*options)
        assert ended.returncode == 1, ended.stdout + ended.stderr
        (sentence,) = ended.stderr.splitlines()
        return sentence.removeprefix("quickstart: ")

    def _start(self, *options: str) -> subprocess.CompletedProcess[str]:
        words = [str(SCRIPT), "--bucket", FACTS["bucket"]["name"], *options]
        return subprocess.run(words, env=self.env, capture_output=True, text=True, check=False)  # noqa: S603
