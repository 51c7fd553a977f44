"""Arrival of the newest line; what the command needs; and every failure of a question."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tap_forensics.sandbox.processes import free_port
from tests.integration.cli.conftest import Site
from tests.integration.cli.secops.conftest import FORENSICS, MAIL, THREAT, check, found, put
from tests.support.secops_api import CUSTOMER, OPTIONS, PROJECT, SecopsApi


def test_the_newest_line_of_each_kind_is_searched_for(site: Site, api: SecopsApi) -> None:
    forensics, mail = found(site, "arrival")
    assert forensics[0] == mail[0] == "ok"
    assert f"(threat {THREAT} in gs://demo-bucket/tap-forensics/tap_forensics_" in forensics[1]
    assert "the newest line is in SecOps, which has events of this type" in mail[1]
    asked = [call.body for call in api.calls if call.path == ":searchRawLogs"]
    assert asked[0]["baselineQuery"] == f"raw = /[^_]_threatId.{{3,6}}{THREAT}/"
    assert asked[1]["baselineQuery"] == f"raw = /[^_]threatID.{{3,6}}{THREAT}/"


def test_the_same_threat_in_another_kind_of_line_is_no_arrival(site: Site, api: SecopsApi) -> None:
    (_, evidence), (_, event) = api.raw_logs
    api.raw_logs = [(FORENSICS, evidence), (MAIL, evidence)]
    assert [mark for mark, _ in found(site, "arrival")] == ["ok", "warning"]
    api.raw_logs = [(FORENSICS, event), (MAIL, event)]
    assert [mark for mark, _ in found(site, "arrival")] == ["warning", "ok"]


def test_a_line_that_is_not_there_is_given_time(site: Site, api: SecopsApi) -> None:
    api.raw_logs.clear()
    mark, words = found(site, "arrival")[0]
    assert mark == "warning"
    assert "is not in SecOps; it was written" in words
    assert "a feed reads in intervals" in words


def test_a_line_that_arrived_and_became_no_event(site: Site, api: SecopsApi) -> None:
    api.events.clear()
    mark, words = found(site, "arrival")[0]
    assert mark == "wrong"
    assert "is in SecOps, but no event of this type" in words


@pytest.mark.parametrize(
    ("sent", "forensics", "mail"),
    [
        (b'[{}, {"matches": [{"logType": {"displayName": "PROOFPOINT_MAIL"}}]}]', "warning", "ok"),
        (b'[{"matches": null}, {"matches": [{"logType": "Proofpoint TAP Forensics"}]}]', "ok", "warning"),
        (b'{"matches": [{"logType": {"displayName": "Proofpoint TAP alerts"}}]}', "ok", "ok"),
        (b'{"matches": [{}]}', "ok", "ok"),
        (b'{"matches": []}', "warning", "warning"),
    ],
)
def test_each_known_form_of_matches_is_read(
    site: Site, api: SecopsApi, sent: bytes, forensics: str, mail: str
) -> None:
    """An instance was seen to send a list of parts, and to ignore the filter by log type."""
    api.fails[":searchRawLogs"] = (200, sent)
    assert [mark for mark, _ in found(site, "arrival")] == [forensics, mail]


def test_a_summary_is_tried_too_and_is_not_taken_for_evidence(site: Site, api: SecopsApi) -> None:
    """Both have `_threatId` and the same id."""
    api.set_up(site.bucket.name, PROOFPOINT_TAP_THREATS="tap-threats")
    line = b'{"id":"%s","name":"shop.example.com","_threatId":"%s"}\n' % (THREAT.encode(), THREAT.encode())
    put(site, api, "PROOFPOINT_TAP_THREATS", "tap-threats/tap_threat_summaries", line)
    for about in ("feed", "parser", "arrival"):
        marks = [
            mark for mark, words in found(site, about, SUMMARIES_PREFIX="tap-threats") if "THREATS" in words
        ]
        assert marks == ["ok"], about
    api.fails[":searchRawLogs"] = (200, b'{"matches": [{"logType": "Proofpoint TAP Threats"}]}')
    marks = [mark for mark, _ in found(site, "arrival", SUMMARIES_PREFIX="tap-threats")]
    assert marks == ["warning", "warning", "ok"]


@pytest.mark.usefixtures("api")
def test_an_empty_bucket_has_nothing_to_try(site: Site) -> None:
    listed = found(site, "parser", GCS_PREFIX="other", FORENSICS="on", EVENTS_PREFIX="")
    assert listed == [
        (
            "warning",
            f"{FORENSICS}: no line of the last 7 days in gs://demo-bucket/other/ to try "
            "let the function run first",
        )
    ]
    assert not found(site, "record shape", FORENSICS="off")


@pytest.mark.parametrize(
    ("path", "status", "about", "words"),
    [
        ("feeds", 403, "feed", "could not list the feeds: this Google identity may not do that (403)"),
        ("logTypes/PROOFPOINT_MAIL/parsers", 403, "parser", "chronicle.parsers.list"),
        ("logTypes/PROOFPOINT_MAIL/parserExt", 403, "parser", "chronicle.parserExtensions.list"),
        ("logTypes/PROOFPOINT_MAIL:runParser", 400, "parser", "could not run the parser of PROOFPOINT_MAIL"),
        ("logTypes/PROOFPOINT_MAIL/parsers", 404, "parser", "no such instance or resource (404)"),
        (":searchRawLogs", 503, "arrival", "could not search the raw logs of PROOFPOINT_MAIL"),
        (":udmSearch", 403, "arrival", "chronicle.events.udmSearch"),
    ],
)
def test_one_question_without_an_answer_does_not_end_the_others(
    site: Site, api: SecopsApi, path: str, status: int, about: str, words: str
) -> None:
    api.fails[path] = (status, b'{"error": {"message": "\x1b[31mann@example.com"}}')
    wrong = [sentence for mark, sentence in found(site, about) if mark == "wrong"]
    assert any(words in sentence for sentence in wrong), wrong
    assert found(site, "record shape")[0][0] == "ok"
    assert "ann@" not in check(site).output


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "Google credentials (401)"), (404, "no such instance"), (429, "quota of the Chronicle API")],
)
def test_what_every_question_would_meet_is_told_once(
    site: Site, api: SecopsApi, status: int, words: str
) -> None:
    api.fails["feeds"] = (status, b"{}")
    ((mark, sentence),) = found(site, "secops")
    assert (mark, words in sentence) == ("wrong", True)
    assert [call.path for call in api.calls] == ["feeds"]
    assert not found(site, "parser")


def test_a_quota_that_ends_in_between_ends_the_questions(site: Site, api: SecopsApi) -> None:
    api.fails[f"logTypes/{FORENSICS}:runParser"] = (429, b"{}")
    assert len(found(site, "secops")) == 1
    assert not any(call.path.startswith(f"logTypes/{MAIL}") for call in api.calls)


def test_nobody_there_and_no_json(site: Site, api: SecopsApi) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    assert (
        "no answer from europe-chronicle.googleapis.com"
        in found(site, "secops", SECOPS_EMULATOR_HOST=gone)[0][1]
    )
    api.fails["feeds"] = (200, b"<html>\x1b[31mSign in</html>")
    ((mark, words),) = found(site, "feed")
    assert (mark, "not what the Chronicle API documents" in words) == ("wrong", True)
    assert "Sign in" not in check(site).output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--secops needs --customer-id"),
        (("--customer-id", CUSTOMER), "--secops needs --project-id"),
        (("--customer-id", "x", "--project-id", PROJECT), "--customer-id 'x' is not allowed"),
        ((*OPTIONS, "--region", "evil.example.com/"), "--region 'evil.example.com/' is not allowed"),
        ((*OPTIONS, "--project-id", "a/../\x1b[2J"), "--project-id 'a/../\\x1b[2J' is not allowed"),
    ],
)
def test_what_is_missing_or_not_allowed_is_told_before_anything_is_asked(
    site: Site, api: SecopsApi, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    process = site.start("check", "--secops", *options, env={"HOME": str(tmp_path)})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert words in " ".join(err.split())
    assert api.calls == []
    assert site.tap.calls == []


def test_options_come_from_the_environment_or_from_the_clients_own_file(
    site: Site, api: SecopsApi, tmp_path: Path
) -> None:
    settings = tmp_path / ".secops" / "config.json"
    settings.parent.mkdir()
    settings.write_text(f'{{"customer_id": "{CUSTOMER}", "project_id": "wrong one", "region": "europe"}}')
    env = {"HOME": str(tmp_path), "CHRONICLE_PROJECT_ID": PROJECT}
    out, err = site.start("check", "--secops", env=env).communicate(timeout=60)
    assert "✓ record shape" in out, err
    assert {call.path for call in api.calls} >= {"feeds", ":searchRawLogs"}


@pytest.mark.usefixtures("api")
def test_an_emulator_elsewhere_is_not_asked(site: Site) -> None:
    result = check(site, SECOPS_EMULATOR_HOST="http://secops.example.com:80")
    assert result.exit_code == 2
    assert "only for a server on loopback" in result.output


@pytest.mark.usefixtures("api")
def test_without_the_client_the_extra_is_named_and_nothing_else_needs_it(site: Site) -> None:
    """In a process that cannot import it."""
    hidden = (
        "import sys; sys.modules['secops'] = None\n"
        "from tap_forensics.__main__ import main\n"
        "sys.argv[0] = 'tap-forensics'\n"
        "main()"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", hidden, *words]
        return subprocess.run(command, env=site.env, capture_output=True, text=True, check=False)  # noqa: S603

    refused = run("check", *OPTIONS)
    assert refused.returncode == 2
    assert "pip install '.[cli,secops]'" in refused.stderr
    assert run("check").returncode == 0
