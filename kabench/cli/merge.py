"""`kabench merge`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from kabench.store.collect import FoundLog

MANY = 200
"""Logs from which on a merge takes so long that one wants to see it go on."""


def merge(
    paths: Annotated[
        list[Path], typer.Argument(help="Runs' folders, agents' logs, or folders with any of them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where merged.json, merged.hlog and the .hgrm go. [the only path, or .]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")
    ] = False,
    series: Annotated[
        bool, typer.Option("--series", help="Also write series.csv: every second of every target.")
    ] = False,
    allow_different: Annotated[
        bool, typer.Option("--allow-different", help="Also add up runs of different scenarios.")
    ] = False,
) -> None:
    """Add up all logs in PATHS without loss, each window once, per phase and kind of target."""
    import msgspec

    from kabench.cli.console import Terminal, say
    from kabench.errors import LogError
    from kabench.report.tables import print_summary
    from kabench.store import merge_paths

    errors = Terminal(stderr=True)

    def following(logs: Sequence[FoundLog]) -> Iterable[FoundLog]:
        return _followed(logs, errors)

    report = merge_paths(paths, out or _beside(paths), allow_different, series=series, following=following)
    for corrupt in report.corrupt:
        errors.print(
            f"corrupt: {corrupt.path}: {corrupt.reason}", highlight=False, markup=False, soft_wrap=True
        )
    if as_json:
        say(msgspec.json.format(msgspec.json.encode(report.summary), indent=2).decode())
    else:
        console = Terminal()
        print_summary(console, report.summary)
        counted = f"{report.windows} agents' windows counted, {report.ignored} files held nothing new"
        unjudged = f"; {len(report.unjudged)} logs without a journal are counted" if report.unjudged else ""
        console.print(counted + unjudged, highlight=False, markup=False)
        for file in report.files[:2] + report.files[2:][-1:] * series:
            console.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)
    if report.corrupt:
        raise typer.Exit(LogError.exit_code)


def _beside(paths: list[Path]) -> Path:
    """The folder that was given, if it is one only; else this one."""
    return paths[0] if len(paths) == 1 and paths[0].is_dir() else Path()


def _followed(logs: Sequence[FoundLog], console: Console) -> Iterable[FoundLog]:
    """The logs, with a bar of how many have been given; on a terminal, and where they are many."""
    from rich.progress import track

    hidden = not console.is_terminal or len(logs) < MANY
    return track(logs, "merging", console=console, transient=True, disable=hidden)
