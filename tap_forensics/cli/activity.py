"""How far long work is: one line on stderr while it lasts, and nothing if stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner

from tap_forensics.cli.terminal import safe_text

_REFRESHES_PER_SECOND = 5

Say = Callable[[str], None]


@contextmanager
def shown_live(err: Console, render: Callable[[], RenderableType]) -> Iterator[None]:
    """Shows what `render` returns, until the end of the context; the result replaces it."""
    if not err.is_terminal:
        yield
        return
    with Live(
        console=err,
        get_renderable=render,
        refresh_per_second=_REFRESHES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    ):
        yield


@contextmanager
def activity(err: Console) -> Iterator[Say]:
    """Yields a function that says what is being done, such as `Reading object 3 of 8`."""
    # ASCII, because a terminal may not have more.
    spinner = Spinner("line")

    def say(words: str) -> None:
        spinner.update(text=safe_text(words))

    with shown_live(err, lambda: spinner):
        yield say
