"""`kabench run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kabench.cli.cluster_flags import AllowContext, Context, Kubeconfig, Transport, access_of


def run(
    scenario: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a built-in scenario.")
    ] = "seed",
    agents: Annotated[int | None, typer.Option(help="Nodes, with one agent on each.")] = None,
    backend: Annotated[str, typer.Option(help="Where to run: auto, local or kubernetes.")] = "auto",
    quick: Annotated[
        bool, typer.Option("--quick", help="The first two phases, 8 blocks, within 4 minutes.")
    ] = False,
    duration: Annotated[str | None, typer.Option(help="Plan blocks and windows to fit, such as 30m.")] = None,
    blocks: Annotated[int | None, typer.Option(help="How often every phase is measured.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second, over all agents and targets.")
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="NAME, or NAME=policy:X, NAME=scheduler:X, NAME=pin:quiet|noisy; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("results"),
    resume: Annotated[str | None, typer.Option(help="Go on with a run: its id, or its folder.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON and nothing else.")
    ] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    allow_context: AllowContext = None,
    transport: Transport = "proxy",
    alongside: Annotated[
        bool, typer.Option("--alongside", help="Run although another run is active in the cluster.")
    ] = False,
) -> None:
    """Run a benchmark, and leave its data and charts in OUT/RUN."""
    from kabench.cli.session import Request, execute

    request = Request(
        source=scenario,
        agents=agents,
        backend=backend,
        quick=quick,
        duration=duration,
        blocks=blocks,
        rate_per_s=rate,
        phases=tuple(phase or ()),
        seed=seed,
        out=out,
        resume=resume,
        as_json=as_json,
        cluster=access_of(context, kubeconfig, allow_context, transport, alongside),
    )
    code = execute(request)
    if code:
        raise typer.Exit(code)
