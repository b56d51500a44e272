"""The console that commands print to."""

from __future__ import annotations

import contextlib

import typer
from rich.console import Console


def say(text: str) -> None:
    """Print `text` as it is; that nobody reads it changes nothing of how the command ends."""
    with contextlib.suppress(BrokenPipeError):
        typer.echo(text)


class Terminal(Console):
    """Falls silent when its reader has gone; rich would end the process, and a run with it."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True
