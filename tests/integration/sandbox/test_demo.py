from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tap_forensics.sandbox import console as display
from tap_forensics.sandbox import demo
from tap_forensics.sandbox.__main__ import main
from tap_forensics.sandbox.processes import free_port, is_free
from tests.support.terminals import children, is_gone, terminal

HEAD = "import functions_framework, time\n@functions_framework.cloud_event\ndef main(event):\n"


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A function that says that it began, and then takes its time."""
    source = tmp_path / "main.py"
    source.write_text(HEAD + "    print('began')\n    time.sleep(1)\n")
    return source


@pytest.fixture
def idle(tmp_path: Path) -> Path:
    """A function that answers 200 and writes nothing."""
    source = tmp_path / "main.py"
    source.write_text(HEAD + "    print('idle')\n")
    return source


@contextmanager
def shown(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The sandbox's command as a process; killed if the test leaves it running."""
    command = [sys.executable, "-m", "tap_forensics.sandbox", *arguments]
    env = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"} | dict(environment or {})
    # This Python, with arguments of ours.
    with subprocess.Popen(  # noqa: S603
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What was printed up to and with the line that holds `text`."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    pytest.fail(f"{text!r} never came:\n{''.join(lines)}")


def ports(text: str) -> set[int]:
    return {int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", text)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_ends_all_that_it_started(slow: Path, number: signal.Signals) -> None:
    with shown("--source", str(slow), "demo") as process:
        opened = ports(read_until(process, "began"))
        process.send_signal(number)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert len(opened) == 3
    assert all(map(is_free, opened))


@pytest.mark.parametrize("command", [["demo"], ["run", "--port", "0"]])
def test_a_closed_terminal_ends_all_that_was_started(slow: Path, command: list[str]) -> None:
    words = [word if word != "0" else str(free_port()) for word in command]
    env = {"PATH": os.environ["PATH"], "TAP_PRINCIPAL": "p", "TAP_SECRET": "s"}
    with terminal(["-m", "tap_forensics.sandbox", "--source", str(slow), *words], env) as opened:
        opened.read_until("began")
        started = children(opened.process.pid)
        used = {int(port) for line in started.values() for port in re.findall(r"-port (\d+)", line)}
        opened.close()
        opened.process.wait(20)
    assert len(started) == len(used) == 2
    assert all(map(is_gone, started))
    assert all(map(is_free, used))


def test_with_nohup_a_closed_terminal_ends_nothing(slow: Path) -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "from tap_forensics.sandbox.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "--source", str(slow), "demo"]
    env = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE) as process:  # noqa: S603 - as above
        read_until(process, "began")
        process.send_signal(signal.SIGHUP)
        read_until(process, "answer: 200")
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 130


def test_a_demo_in_which_nothing_comes_fails_and_says_so(
    idle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--source", str(idle), "demo"]) == 1
    assert re.search(r"FAILED: (\d+) of \1 threats have no line", capsys.readouterr().out)


def test_run_stays_up_with_the_curl_line_for_more_events(idle: Path) -> None:
    port = str(free_port())
    credentials = {"TAP_PRINCIPAL": "p", "TAP_SECRET": "s"}
    with shown("--source", str(idle), "run", "--port", port, environment=credentials) as process:
        text = read_until(process, "storage/v1/b")
        assert f"curl -i http://127.0.0.1:{port} -H 'ce-id: 1'" in text
        assert "answer: 200" in text
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert all(map(is_free, ports(text)))


@pytest.mark.parametrize("environment", [{}, {"TAP_PRINCIPAL": "p"}, {"TAP_SECRET_FILE": "s"}])
def test_run_without_credentials_names_the_variables(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.run(Path("main.py"), 8080, environment) == 2
    output = capsys.readouterr().out
    assert all(
        name in output for name in ("TAP_PRINCIPAL", "TAP_SECRET", "TAP_PRINCIPAL_FILE", "TAP_SECRET_FILE")
    )


def test_without_a_main_py_the_command_says_where_it_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--source", str(tmp_path / "main.py"), "demo"]) == 2
    assert str(tmp_path / "main.py") in capsys.readouterr().out


def test_the_verdict_names_what_is_missing_doubled_or_changed() -> None:
    before, after = {"a": [b"1"], "b": [b"2"]}, {"a": [b"1", b"1"], "b": [b"2"]}
    assert demo.verdict({"a", "b"}, before, before) == []
    assert demo.verdict({"a", "c"}, before, before) == ["1 of 2 threats have no line, such as c"]
    assert demo.verdict({"a", "b"}, before, after) == [
        "1 lines came twice",
        "the second event changed the lines of 1 threats, such as a",
    ]


def test_lines_are_found_under_their_threat_whatever_they_hold() -> None:
    line = '{"_threatId":"a","note":"one \u2028 two"}'.encode()
    objects = {"x.ndjson": line + b"\n" + line + b"\n", "state.json": b"{}"}
    assert demo.lines_by_threat(objects) == {"a": [line, line]}


def test_long_values_are_cut_for_the_eye_and_short_ones_are_not() -> None:
    assert display.cut([1, 2, 3, 4], most=2) == [1, 2, "… 2 more"]
    assert display.cut({str(n): n for n in range(12)}, most=2) == {"0": 0, "1": 1, "…": "10 more"}
    assert display.cut({"a": ["x" * 101]}, most=2) == {"a": ["x" * 100 + "…"]}
    assert display.cut({str(n): n for n in range(10)}, most=2) == {str(n): n for n in range(10)}
