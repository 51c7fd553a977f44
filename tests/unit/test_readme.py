from __future__ import annotations

from tap_forensics.cli.main import COMMANDS
from tap_forensics.config.settings import VARIABLES
from tests.readme import README, with_table

TEXT = README.read_text(encoding="utf-8")


def test_the_settings_table_is_made_from_the_declaration() -> None:
    assert with_table(TEXT) == TEXT, "run `make readme`"
    assert all(f"`{variable.name}`" in TEXT for variable in VARIABLES)


def test_both_commands_that_do_all_the_set_up_are_named() -> None:
    assert "make demo" in TEXT
    assert "make test" in TEXT


def test_each_command_has_its_screen() -> None:
    assert all(f"$ tap-forensics {name}" in TEXT for name in COMMANDS)
