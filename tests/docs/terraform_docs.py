"""Inputs and outputs of the Terraform module, in the layout of terraform-docs (`markdown table`).

Reads files in the form that `terraform fmt` gives them, which a test holds them to.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

MODULE = Path(__file__).resolve().parents[2] / "deploy" / "terraform"
_BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}$', re.M | re.S)
# An argument, and what follows it up to the next one or a nested block.
_ARGUMENT = re.compile(r"^  (\w+) += (.+?)(?=^  (?:\w+ +=|\w+ \{)|^$|\Z)", re.M | re.S)
_PROVIDER = re.compile(r'(\w+) = \{\n.*?version = "([^"]+)"', re.S)
_TERRAFORM = re.compile(r'required_version = "([^"]+)"')


def requirements(module: Path = MODULE) -> str:
    text = (module / "versions.tf").read_text(encoding="utf-8")
    versions = {"terraform": _TERRAFORM.findall(text)[0], **dict(_PROVIDER.findall(text))}
    rows = [[_linked("requirement", name), version] for name, version in versions.items()]
    return _table(["Name", "Version"], rows)


def inputs(module: Path = MODULE) -> str:
    rows = [
        [
            _linked("input", name),
            _escaped(_text(arguments["description"])),
            _code(arguments["type"]),
            _code(arguments["default"]) if "default" in arguments else "n/a",
            "no" if "default" in arguments else "yes",
        ]
        for name, arguments in declared("variable", module).items()
    ]
    return _table(["Name", "Description", "Type", "Default", "Required"], rows)


def outputs(module: Path = MODULE) -> str:
    rows = [
        [_linked("output", name), _escaped(_text(arguments["description"]))]
        for name, arguments in declared("output", module).items()
    ]
    return _table(["Name", "Description"], rows)


def declared(kind: str, module: Path) -> dict[str, dict[str, str]]:
    """The arguments of all variables or outputs, as they are written, by name."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(module.glob("*.tf"))]
    blocks = [block for text in texts for block in _BLOCK.findall(text)]
    found = {name: dict(_ARGUMENT.findall(body)) for of_kind, name, body in blocks if of_kind == kind}
    return dict(sorted(found.items()))


def _text(quoted: str) -> str:
    return quoted.strip()[1:-1].replace('\\"', '"')


def _linked(kind: str, name: str) -> str:
    return f'<a name="{kind}_{name}"></a> [{_escaped(name)}](#{kind}\\_{_escaped(name)})'


def _code(value: str) -> str:
    value = textwrap.dedent(f"  {value}").strip()
    if "\n" not in value:
        return f"`{value}`"
    return f"<pre>{value.replace(chr(10), '<br/>')}</pre>"


def _escaped(text: str) -> str:
    """What Markdown would read as its own, except in code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([|*_<>])", r"\\\1", part) for part in parts)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    rule = [":" + "-" * len(c) + ":" if c == "Required" else "-" * (len(c) + 2) for c in columns]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(rule)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
