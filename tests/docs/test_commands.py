"""Every command of README and tutorial is executed, or is named here with the reason why it is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.local_tenant import BUCKET, LocalTenant, local_tenant
from tests.docs.markers import CHECKOUT, pages, without_parts

PAGES = ("README.md", "docs/tutorial.md")
# Beginning of a command → why it is not executed here.
NOT_EXECUTED = {
    "make demo": "installs from a package index; its output is compared in test_generated.py",
    "make run": "asks a real tenant; tests/integration does it with the stand-in",
    "git clone": "the address is a placeholder",
    "deploy/quickstart.sh": "changes a Google Cloud project; tests/deploy runs it against a stand-in",
    "gcloud": "needs a Google account",
    "pip install": "installs from a package index",
    "python3 -m venv": "sets up the reader's own shell",
    "source": "sets up the reader's own shell",
    "export": "sets up the reader's own shell",
    "read -rs": "asks the reader for a secret",
    "tap-forensics audit --from 2026": "the date gets too old; test_generated.py executes it with today's",
    "tap-forensics demo --keep": "stays up until Ctrl-C",
    "open report.html": "starts a browser",
}
_BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```$", re.M | re.S)


def commands(text: str) -> Iterator[str]:
    """The command lines of all `sh` and `console` blocks; of `console` those with a prompt."""
    for kind, body in _BLOCK.findall(text):
        for line in body.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ") if kind == "console" and line.startswith("$ ") else line
            command = command.partition("  #")[0].strip()
            if command and not command.startswith("#") and (kind == "sh" or line.startswith("$ ")):
                yield command


def written() -> list[str]:
    """Generated screens are executed elsewhere."""
    texts = [without_parts((CHECKOUT / name).read_text(encoding="utf-8")) for name in PAGES]
    return sorted({command for text in texts for command in commands(text)})


def reason(command: str) -> str | None:
    return next((why for start, why in NOT_EXECUTED.items() if command.startswith(start)), None)


@pytest.fixture(scope="module")
def tenant() -> Iterator[LocalTenant]:
    with local_tenant() as made:
        assert made.call("run").exit_code == 0
        yield made


@pytest.mark.parametrize("command", [command for command in written() if not reason(command)])
def test_a_command_works_as_it_is_written(tenant: LocalTenant, command: str) -> None:
    name, _, words = command.partition(" ")
    assert Path(name).name == "tap-forensics", f"execute `{command}` here, or say in NOT_EXECUTED why not"
    called = tenant.call(re.sub(r"gs://[\w-]+/", f"gs://{BUCKET}/", words))
    assert called.exit_code == 0, called.output


def test_only_commands_that_are_written_are_excused() -> None:
    assert [start for start in NOT_EXECUTED if not any(c.startswith(start) for c in written())] == []


def test_continued_lines_comments_and_output_are_told_apart() -> None:
    page = "```sh\n# why\na \\\n  b  # c\n```\n```console\n$ d\nsaid\n```\n```text\ne\n```\n"
    assert list(commands(page)) == ["a    b", "d"]


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_page_names_a_path_of_a_machine_or_an_index(path: Path) -> None:
    pattern = r"/(?:work|root|home|Users|var/folders)/|pypi|pythonhosted|--?index-url|registry\.npm"
    assert re.findall(pattern, path.read_text(encoding="utf-8")) == []
