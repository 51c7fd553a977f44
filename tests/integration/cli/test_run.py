from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tap_forensics.sandbox.tap_api import utc_now
from tests.integration.cli.conftest import Site, live_lease
from tests.support.settings import STATE
from tests.support.terminals import children, is_gone, terminal

LOOKBACK = {"LOOKBACK_HOURS": "3"}


def wait_for_a_forensics_call(site: Site, process: subprocess.Popen[str]) -> None:
    while not site.tap.calls_to("/v2/forensics"):
        assert process.poll() is None


def test_a_run_delivers_and_ends_with_its_figures(site: Site) -> None:
    result = site.call("run", **LOOKBACK)
    assert result.exit_code == 0
    assert "complete" in result.stdout
    assert "reports in" in result.stdout
    assert "Fetching threats from" in result.stderr
    now = utc_now()
    assert dict(site.delivered()) == site.truth(now - timedelta(hours=3), now)


def test_its_json_is_the_figures_of_the_log_and_nothing_else(site: Site) -> None:
    stats = site.call_json("run", **LOOKBACK)
    assert stats["outcome"] == "complete"
    assert stats["threats_answered"] == stats["threats_chosen"] == stats["threats_new"] > 0
    assert stats["windows"] == stats["windows_planned"] == 4 - 1
    assert stats["siem_calls_left"] == 1800 - 3
    assert stats["forensics_calls_left"] is None


def test_what_waits_for_the_next_run_ends_it_with_3(site: Site) -> None:
    assert site.call("run", MAX_THREATS="1", **LOOKBACK).exit_code == 3


def test_beside_another_run_it_does_nothing_and_ends_with_4(site: Site) -> None:
    site.put_state(lease=live_lease())
    assert site.call_json("run")["outcome"] == "busy"
    assert site.call("run").exit_code == 4
    assert not site.tap.calls


def test_a_failed_run_ends_with_1_and_its_reason(site: Site) -> None:
    result = site.call("run", TAP_PRINCIPAL="wrong")
    assert result.exit_code == 1
    assert "TAP answered 401" in result.stderr
    assert site.call_json("run", TAP_PRINCIPAL="wrong")["reason"].startswith("TAP answered 401")


def test_all_wrong_settings_are_named_before_anything_is_called(site: Site) -> None:
    result = site.call("run", MAX_THREATS="many", GCS_BUCKET="gs://x")
    assert result.exit_code == 2
    assert {"MAX_THREATS", "GCS_BUCKET"} <= set(result.stderr.replace("=", " ").split())
    assert "Traceback" not in result.output
    assert len(site.call_json("run", MAX_THREATS="many", GCS_BUCKET="gs://x")["sentences"]) == 2
    assert not site.tap.calls


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_gives_the_lease_back_and_the_next_run_goes_on(
    site: Site, number: signal.Signals
) -> None:
    site.tap.latency_seconds = 0.3
    begun = utc_now()
    with site.start("run", env=LOOKBACK | {"FETCH_CONCURRENCY": "1"}) as process:
        wait_for_a_forensics_call(site, process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "continues from there" in stderr
    left = site.state()
    assert "lease" not in left
    assert left["backlog"]
    site.tap.latency_seconds = 0
    assert site.call("run", **LOOKBACK).exit_code == 0
    assert dict(site.delivered()) == site.truth(begun - timedelta(hours=3), utc_now())


def test_on_a_terminal_it_shows_live_progress_and_elsewhere_plain_lines(site: Site) -> None:
    site.tap.latency_seconds = 0.05
    mine, theirs = pty.openpty()
    env = LOOKBACK | {"TERM": "xterm", "COLUMNS": "100"}
    with site.start("run", stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(mine, 65536):
                shown += chunk
        except OSError:  # how Linux says that the other end of a terminal is closed
            pass
    os.close(mine)
    assert process.returncode == 0
    screen = shown.decode()
    assert "\x1b[" in screen
    assert all(word in screen for word in ("windows", "threats", "calls left", "to go", "SIEM 1,79"))
    assert "INFO" not in screen
    with site.start("run", env=env) as plain:
        out, stderr = plain.communicate(timeout=30)
    assert "\x1b" not in out + stderr
    assert "INFO" in stderr


def test_a_folder_of_this_machine_serves_as_the_bucket(site: Site, tmp_path: Path) -> None:
    del site.env["GCS_BUCKET"], site.env["STORAGE_EMULATOR_HOST"]
    here = tmp_path / "tap"
    assert site.call("run", "--folder", str(here), **LOOKBACK).exit_code == 0
    found = [path.read_bytes() for path in here.glob("local-bucket/tap-forensics/*.ndjson")]
    lines = [line for data in found for line in data.splitlines()]
    assert lines
    assert all(json.loads(line)["_threatId"] for line in lines)
    again = site.call_json("run", "--folder", str(here), **LOOKBACK)
    assert (again["outcome"], again["threats_new"]) == ("complete", 0)


def test_a_closed_terminal_gives_the_lease_back_and_ends_the_folders_server(
    site: Site, tmp_path: Path
) -> None:
    site.tap.latency_seconds = 0.3
    del site.env["STORAGE_EMULATOR_HOST"], site.env["GCS_BUCKET"]
    env = {"PATH": os.environ["PATH"], "TERM": "xterm", "FETCH_CONCURRENCY": "1", **LOOKBACK, **site.env}
    with terminal(["-m", "tap_forensics", "run", "--folder", str(tmp_path)], env) as opened:
        while not site.tap.calls_to("/v2/forensics"):
            assert opened.process.poll() is None
        (server,) = children(opened.process.pid)
        opened.close()
        opened.process.wait(30)
    assert is_gone(server)
    state = json.loads((tmp_path / "local-bucket" / STATE).read_bytes())
    assert state["backlog"]
    assert "lease" not in state


def test_a_folder_with_files_of_others_is_refused(site: Site, tmp_path: Path) -> None:
    stranger = tmp_path / "local-bucket" / "notes.txt"
    stranger.parent.mkdir()
    stranger.write_text("mine")
    del site.env["GCS_BUCKET"]
    result = site.call("status", "--folder", str(tmp_path))
    assert result.exit_code == 2
    assert "give a folder of its own" in " ".join(result.stderr.split())
    assert stranger.read_text() == "mine"


def test_a_terminal_without_utf8_gets_question_marks_and_no_traceback(site: Site) -> None:
    with site.start("check", env={"PYTHONIOENCODING": "ascii"}) as process:
        out, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "? settings" in out
    assert "Traceback" not in stderr


def test_what_the_api_says_does_not_act_on_the_terminal(site: Site) -> None:
    site.put_state(last_event_time="[bold]\x1b[31mnever[/bold]")
    stderr = site.call("run").stderr
    assert STATE in stderr
    assert "\x1b" not in stderr


def test_without_its_libraries_it_names_the_extra() -> None:
    code = "import sys; sys.modules['rich'] = None; from tap_forensics.__main__ import main; main()"
    completed = subprocess.run(  # noqa: S603 (this Python, our words)
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 2
    assert "pip install '.[cli]'" in completed.stderr
