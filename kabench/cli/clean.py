"""`kabench clean`."""

from __future__ import annotations

from typing import Annotated

import typer

from kabench.cli.cluster_flags import AllowContext, Context, Kubeconfig, Transport, access_of


def clean(
    run: Annotated[str | None, typer.Option(help="Remove this one.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="Remove those whose time is over.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all; with --yes also those that may be active.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: also those that may be active.")] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Remove a run although its agents hold logs, or may.")
    ] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    allow_context: AllowContext = None,
    transport: Transport = "proxy",
) -> None:
    """List what runs left in a cluster, or remove it."""
    from kabench.cli.cancelling import run_cancellable
    from kabench.cli.remains import Choice, clean_up

    access = access_of(context, kubeconfig, allow_context, transport)
    code = run_cancellable(clean_up(access, Choice(run, expired, everything, yes, discard)))
    if code:
        raise typer.Exit(code)
