"""`kabench collect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kabench.cli.cluster_flags import AllowContext, Context, Kubeconfig, Transport, access_of


def collect(
    run: Annotated[str, typer.Argument(help="The run's id; kabench clean lists them.")],
    out: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("results"),
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    allow_context: AllowContext = None,
    transport: Transport = "proxy",
) -> None:
    """Fetch the logs that a run's agents still hold, into OUT/RUN.

    For runs whose controller is gone; one that lives fetches them itself.
    """
    from kabench.cli.cancelling import run_cancellable
    from kabench.cli.remains import collect_run

    access = access_of(context, kubeconfig, allow_context, transport)
    code = run_cancellable(collect_run(access, run, out))
    if code:
        raise typer.Exit(code)
