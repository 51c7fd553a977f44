from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3

from tap_forensics.sandbox.cloudevents import FunctionServer, curl_line, event_headers, post_event
from tap_forensics.sandbox.processes import is_free

Write = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path) -> Write:
    """Writes a throw-away main.py with this body for `main(event)`."""

    def write(body: str) -> Path:
        file = tmp_path / "main.py"
        head = (
            "import json, os, time, functions_framework\n@functions_framework.cloud_event\ndef main(event):\n"
        )
        file.write_text(head + textwrap.indent(body, "    "))
        return file

    return write


def test_an_event_arrives_as_the_cloudevent_of_a_pubsub_message(source: Write) -> None:
    show = "print(json.dumps([event['type'], event['id'], event['source'], event.data]))"
    with FunctionServer({}, source(show)) as function:
        assert post_event(function.url, b'{"a": 1}', event_id="e-1")[0] == 200
    kind, name, origin, data = json.loads(function.log[-1])
    assert (kind, name) == ("google.cloud.pubsub.topic.v1.messagePublished", "e-1")
    assert origin.endswith("/topics/tap-forensics-collector-trigger")
    assert data["message"]["data"] == "eyJhIjogMX0="
    assert data["message"]["messageId"] == "e-1"


def test_the_function_has_just_the_environment_it_is_given(
    source: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAP_SECRET", "of the outside")
    with FunctionServer({"GIVEN": "1"}, source("print(dict(os.environ))")) as function:
        post_event(function.url)
    assert "'GIVEN': '1'" in function.log[-1]
    assert "TAP_SECRET" not in function.log[-1]


def test_an_exception_in_the_function_is_a_500(source: Write) -> None:
    with FunctionServer({}, source("raise ValueError('as told')")) as function:
        assert post_event(function.url)[0] == 500
        assert function.wait_for_log("ValueError: as told")


def test_a_function_that_does_not_start_says_why(source: Write) -> None:
    file = source("pass")
    file.write_text("raise ImportError('nothing here')")
    with pytest.raises(RuntimeError, match="nothing here"), FunctionServer({}, file):
        pass


def test_a_killed_function_is_gone_at_once_with_all_its_processes(source: Write) -> None:
    with FunctionServer({}, source("print('began'); time.sleep(60)")) as function:
        with ThreadPoolExecutor(1) as caller:
            answer = caller.submit(post_event, function.url)
            assert function.wait_for_log("began")
            function.kill()
            with pytest.raises(urllib3.exceptions.ProtocolError):
                answer.result()
        assert is_free(function.port)


def test_the_curl_line_posts_the_same_headers() -> None:
    words = shlex.split(curl_line("http://127.0.0.1:8080"))
    assert {f"{name}: {value}" for name, value in event_headers("1").items()} <= set(words)
