"""The parts of the documentation that come from declarations in the code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import get_type_hints

import click
import msgspec
from click.testing import CliRunner

from tap_forensics import errors
from tap_forensics.cli.main import tap_forensics
from tap_forensics.config.settings import VARIABLES, Variable
from tap_forensics.records.event_lines import envelope, line_of
from tap_forensics.records.ndjson import Provenance, decode_object, report_lines
from tap_forensics.stats import RunStats
from tap_forensics.storage import state as state_document
from tap_forensics.storage.state import Gap, Lease, LostInterval, State, Threat
from tap_forensics.tap.quota import Pool
from tests.docs import terraform_docs

_NOW = datetime(2026, 11, 21, 21, 0, tzinfo=UTC)
_THREAT_ID = "87d887777969260bd6f351a32daec847d5b39da539f36c2986c712307f5a328b"
_CAMPAIGN_ID = "46e01b8a-c899-404d-bcd9-189bb393d1a7"
_REPORT = {
    "scope": "THREAT",
    "id": _THREAT_ID,
    "name": "shop.example.com/invoice",
    "threatStatus": "active",
    "forensics": [
        {
            "type": "url",
            "display": "https://shop.example.com/invoice",
            "engine": "iee",
            "malicious": True,
            "what": {"url": "https://shop.example.com/invoice", "ip": "192.0.2.17", "httpStatus": 200},
            "platforms": [{"name": "Win7", "os": "windows"}],
        }
    ],
}
_CLICK = {
    "threatID": _THREAT_ID,
    "clickTime": "2026-11-21T20:41:07.000Z",
    "url": "https://shop.example.com/invoice",
    "recipient": "ann@example.com",
    "clickIP": "192.0.2.80",
    "threatStatus": "active",
}


def settings() -> str:
    rows = [(f"`{v.name}`", _default(v), v.meaning) for v in VARIABLES]
    return _table(("variable", "default", "meaning"), rows)


def _default(variable: Variable) -> str:
    if variable.required:
        return "**required**"
    return f"`{variable.default}`" if variable.default else ""


def figures() -> str:
    hints = get_type_hints(RunStats, include_extras=True)
    rows = [(f"`{name}`", hint.__metadata__[0]) for name, hint in hints.items()]
    return _table(("figure", "meaning"), rows)


def exit_codes() -> str:
    """From the help of the group, which every command shares."""
    lines = (tap_forensics.epilog or "").splitlines()
    rows = [tuple(line.split(maxsplit=1)) for line in lines if line.strip()[:1].isdigit()]
    return _table(("exit code", "meaning"), rows)


def help_texts() -> str:
    """`--help` of the group and of each command."""
    return "\n".join(_help(words) for words in _all_commands(tap_forensics))


def _all_commands(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [words]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            found += _all_commands(inner, (*words, name)) if inner else []
    return found


def _help(words: tuple[str, ...]) -> str:
    called = CliRunner().invoke(
        tap_forensics, [*words, "--help"], prog_name="tap-forensics", terminal_width=96
    )
    title = " ".join(("tap-forensics", *words))
    return f"### `{title} --help`\n\n{_fenced('text', called.output)}"


def evidence_lines() -> str:
    shown = [f"`RECORD_SHAPE={shape}`:\n\n{_fenced('json', _pretty(_evidence(shape)))}" for shape in _SHAPES]
    return "\n".join(shown)


_SHAPES = ("report", "response")


def _evidence(shape: str) -> bytes:
    fields = decode_object(msgspec.Raw(msgspec.json.encode(_REPORT)))
    assert fields
    generated = msgspec.Raw(b'"2026-11-21T20:55:30.120Z"')
    provenance = Provenance(_THREAT_ID, _CAMPAIGN_ID, generated)
    (line,) = report_lines(fields, provenance, shape, 1_000_000).lines
    return line


def event_lines() -> str:
    event = msgspec.json.encode(_CLICK)
    shown = []
    for shape in ("api", "flat"):
        around = envelope("clicksPermitted", shape)
        lines = [line_of(event, around, update=update).decode() for update in (False, True)]
        shown.append(f"`EVENTS_SHAPE={shape}`, a new event and the same event with a changed verdict:\n")
        shown.append(_fenced("json", "\n".join(lines)))
    return "\n".join(shown)


def state_fields() -> str:
    return _fenced("text", state_document.__doc__ or "")


def state_sample() -> str:
    """A state in the middle of a run, as the code writes it."""
    at = _NOW - timedelta(minutes=1)
    state = State(
        version=state_document.VERSION,
        last_event_time=at,
        last_run_id="20261121_200000",
        last_owner="0f4c1d2e3a5b6978",
        lease=Lease("20261121_210000", "9a3b5c7d1e2f4061", _NOW, 180, asking=[_THREAT_ID], batches=1),
        gaps=[
            Gap(
                start=_NOW - timedelta(hours=5),
                end=_NOW - timedelta(hours=4),
                planned_at=_NOW - timedelta(hours=4),
                attempts=2,
                last_attempt_at=_NOW - timedelta(hours=1),
            )
        ],
        lost=[
            LostInterval(
                _NOW - timedelta(days=8), _NOW - timedelta(days=8, hours=-1), "TAP keeps 7 days only"
            )
        ],
        calls={"siem": Pool({2982924: 2}), "forensics": Pool({2982924: 31})},
        backlog={_THREAT_ID: Threat(1, at, at, _CAMPAIGN_ID)},
        collected={"5a86b4cd80a772908c114eed79db23e20ed69baba8cad7b5c5841bdd31dba7db": 1795294800},
        campaigns={_CAMPAIGN_ID: 1795294800},
    )
    return _fenced("json", _pretty(state_document.encode(state)))


def error_tree() -> str:
    return _fenced("text", errors.__doc__ or "")


def _pretty(data: bytes) -> str:
    return json.dumps(json.loads(data), indent=2, ensure_ascii=False)


def _fenced(language: str, text: str) -> str:
    body = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
    return f"```{language}\n{body}\n```\n"


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return (
        "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines) + "\n"
    )


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "figures": figures,
    "exit codes": exit_codes,
    "help": help_texts,
    "evidence lines": evidence_lines,
    "event lines": event_lines,
    "state fields": state_fields,
    "state sample": state_sample,
    "errors": error_tree,
    "terraform requirements": terraform_docs.requirements,
    "terraform inputs": terraform_docs.inputs,
    "terraform outputs": terraform_docs.outputs,
}
