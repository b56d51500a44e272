"""What all tables and lines for a terminal are made of."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text


def table() -> Table:
    """Columns without lines; two blanks between them."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def show(console: Console, title: str, made: Table) -> None:
    """A table under its title; rich would wrap a title to the table's width."""
    console.print()
    say(console, title, "bold")
    console.print(made)


def say(console: Console, text: str, style: str = "") -> None:
    """A line, as it is; nothing where there is no text."""
    if text:
        console.print(Text(text, style=style))


def line(text: str, style: str = "") -> Text:
    """One line, cut where the terminal ends."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
