"""What the documentation says of the code is what the code says: `make docs` writes these parts."""

from __future__ import annotations

import re

import msgspec
import pytest

from tap_forensics.cli.context import Exit
from tap_forensics.stats import RunStats
from tap_forensics.storage import state
from tests.docs.generated import PARTS, exit_codes, figures, settings, state_fields
from tests.docs.local_tenant import demo_screen, screens
from tests.docs.markers import CHECKOUT, normalized, pages, parts, updated

GENERATED = [
    (f"{path.relative_to(CHECKOUT)}", name, text)
    for path in pages()
    for name, text in parts(path.read_text(encoding="utf-8"))
]
DECLARED = [entry for entry in GENERATED if not entry[1].startswith("screen ")]
SCREENS = [entry for entry in GENERATED if entry[1].startswith("screen ") and entry[1] != "screen demo"]
DEMO = [(page, text) for page, name, text in GENERATED if name == "screen demo"]


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    return screens()


@pytest.mark.parametrize(("page", "name", "text"), DECLARED)
def test_a_part_is_what_the_code_declares(page: str, name: str, text: str) -> None:
    assert text == PARTS[name](), f"{page}: run `make docs`"


@pytest.mark.parametrize(("page", "name", "text"), SCREENS)
def test_a_screen_is_what_the_command_shows(shown: dict[str, str], page: str, name: str, text: str) -> None:
    assert normalized(text) == normalized(shown[name.removeprefix("screen ")]), f"{page}: run `make docs`"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), DEMO)
def test_the_demo_shows_what_the_tutorial_shows(page: str, text: str) -> None:
    assert normalized(text) == normalized(demo_screen(CHECKOUT / "main.py")), f"{page}: run `make docs`"


def test_every_declaration_and_every_screen_is_somewhere(shown: dict[str, str]) -> None:
    names = {name for _, name, _ in GENERATED}
    assert names == {*PARTS, "screen demo", *(f"screen {name}" for name in shown)}


def test_every_figure_has_a_meaning() -> None:
    assert all(re.search(rf"^\| `{name}` \| \S", figures(), re.M) for name in RunStats().as_fields())


def test_every_exit_code_has_a_meaning() -> None:
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", exit_codes(), re.M)} == set(Exit)


def test_every_field_of_the_state_is_described() -> None:
    kinds = (state.State, state.Lease, state.Gap, state.Threat, state.Lost)
    names = {field.encode_name for kind in kinds for field in msgspec.structs.fields(kind)}
    text = (CHECKOUT / "docs" / "reference" / "state-document.md").read_text(encoding="utf-8")
    text = text.replace(state_fields(), "")
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_only_what_changed_is_written_again() -> None:
    page = "a\n<!-- generated: x -->\nold 1\n<!-- end -->\nb"
    assert updated(page, lambda _: "old 2\n") == page
    assert updated(page, lambda _: "new 2\n") == page.replace("old 1", "new 2")
    assert settings() in updated("<!-- generated: settings -->\n<!-- end -->", lambda name: PARTS[name]())
