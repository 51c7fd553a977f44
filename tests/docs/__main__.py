"""`make docs`: writes every generated part of the documentation anew."""

from __future__ import annotations

from functools import cache

from tests.docs.generated import PARTS
from tests.docs.local_tenant import demo_screen, screens
from tests.docs.markers import CHECKOUT, pages, updated


@cache
def _screens() -> dict[str, str]:
    return {**screens(), "demo": demo_screen(CHECKOUT / "main.py")}


def _made(name: str) -> str:
    kind, _, rest = name.partition(" ")
    return _screens()[rest] if kind == "screen" else PARTS[name]()


if __name__ == "__main__":
    for path in pages():
        text = path.read_text(encoding="utf-8")
        path.write_text(updated(text, _made), encoding="utf-8")
