"""README's settings table, made from the declaration: `make readme` writes it, a test compares it."""

from __future__ import annotations

from pathlib import Path

from tap_forensics.config.settings import VARIABLES, Variable

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- settings: made by `make readme` -->\n", "<!-- end of settings -->\n"


def settings_table() -> str:
    rows = [f"| `{v.name}` | {_default(v)} | {v.meaning} |" for v in VARIABLES]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows, ""])


def _default(variable: Variable) -> str:
    if variable.required:
        return "**required**"
    return f"`{variable.default}`" if variable.default else ""


def with_table(text: str) -> str:
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}{settings_table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
