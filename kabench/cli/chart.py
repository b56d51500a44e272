"""`kabench chart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def chart(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its results.json.")],
    out: Annotated[Path | None, typer.Option(help="Where the charts go. [the run's folder]")] = None,
) -> None:
    """Draw a run's charts again, from results.json alone."""
    from kabench.report.charts import draw_all
    from kabench.store import read_result

    result = read_result(run)
    for path in draw_all(result, out or (run if run.is_dir() else run.parent)):
        typer.echo(path)
