"""The table of inputs and outputs leaves nothing out, whatever the shape of a declaration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.terraform_docs import MODULE, declared, inputs, outputs

ODD = """variable "plain" {
  type        = string
  description = "A | b, *c* and `d_e`, \\"quoted\\"."
}

variable "nested" {
  description = "Says type = and default = itself."
  type = map(object({
    type    = optional(string, "default")
    default = optional(number)
  }))
  default = {
    a = { type = "x" }
  }

  validation {
    condition     = true
    error_message = "None."
  }
}
"""


@pytest.mark.parametrize("kind", ["variable", "output"])
def test_every_declaration_is_in_the_table_with_its_description(kind: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in MODULE.glob("*.tf")]
    names = sorted(name for text in texts for name in re.findall(rf'{kind}\s+"(\w+)"', text))
    assert names
    assert list(declared(kind, MODULE)) == names
    assert all(arguments["description"].strip() for arguments in declared(kind, MODULE).values())
    assert len((inputs() if kind == "variable" else outputs()).splitlines()) == 2 + len(names)


def test_odd_declarations_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "odd.tf").write_text(ODD, encoding="utf-8")
    nested, plain = inputs(tmp_path).splitlines()[2:]
    assert plain.endswith('| A \\| b, \\*c\\* and `d_e`, "quoted". | `string` | n/a | yes |')
    assert "| Says type = and default = itself. | <pre>map(object({<br/>" in nested
    assert nested.endswith('| <pre>{<br/>  a = { type = "x" }<br/>}</pre> | no |')
