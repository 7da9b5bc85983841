"""What the commands print: messages on stderr, tables on stdout. rich loads when something is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def output() -> Console:
    """Where results go. In files and pipes lines are not broken, so that paths can be found and copied."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=10_000)


def table(title: str, columns: list[str], rows: list[list[str]], *, styles: list[str] | None = None) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for number, row in enumerate(rows):
        grid.add_row(*map(Text, row), style=styles[number] if styles else None)
    output().print(grid)
