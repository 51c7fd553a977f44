"""The repository's address is that of pyproject.toml wherever a reader clones or opens it."""

from __future__ import annotations

import re
import tomllib
from urllib.parse import parse_qs, urlsplit

from tests.docs.markers import CHECKOUT, pages

HOMEPAGE = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
    "Homepage"
]


def test_every_clone_command_and_cloud_shell_link_leads_to_the_homepage() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    cloned = re.findall(r"git clone (\S+)", text)
    opened = [
        urlsplit(link)
        for link in re.findall(r"https://shell\.cloud\.google\.com/cloudshell/open[^)\s]*", text)
    ]
    assert cloned
    assert opened
    repositories = [parse_qs(link.query)["cloudshell_git_repo"] for link in opened]
    assert {*cloned, *(one for (one,) in repositories)} == {HOMEPAGE}


def test_each_file_with_the_address_is_named_where_it_is_changed() -> None:
    listed = (
        (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The repository's address")[2]
    )
    naming = [page for page in pages() if HOMEPAGE in page.read_text(encoding="utf-8")]
    names = {page.relative_to(CHECKOUT).as_posix() for page in naming} - {"CONTRIBUTING.md"}
    assert names
    assert [name for name in names if name not in listed] == []
