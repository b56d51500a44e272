"""`kabench render`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kabench.cli.cluster_flags import AllowContext, Context, Kubeconfig, access_of

if TYPE_CHECKING:
    from kabench.backends.kubernetes.access import Access
    from kabench.backends.kubernetes.manifests import Object


def render(
    scenario: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a built-in scenario.")
    ] = "seed",
    agents: Annotated[int | None, typer.Option(help="Nodes, with one agent on each.")] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="NAME, or NAME=scheduler:X, NAME=pin:quiet|noisy; repeatable."),
    ] = None,
    dry_run: Annotated[
        str,
        typer.Option(help="none: print the YAML. server: have the API server check it, and keep nothing."),
    ] = "none",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    allow_context: AllowContext = None,
) -> None:
    """Print what a run on Kubernetes would apply, for one block."""
    from kabench.backends.kubernetes.rendering import as_yaml, example_objects
    from kabench.cli.sources import is_built_in, load_source
    from kabench.core.scenario import KUBERNETES_ARMS, override, with_arms
    from kabench.errors import ClusterError, SpecError

    if dry_run not in ("none", "server"):
        raise SpecError(f"--dry-run {dry_run}: give none or server")
    source = load_source(scenario)
    if is_built_in(scenario):
        source = with_arms(source, KUBERNETES_ARMS)
    objects = example_objects(
        override(source, agents=agents, phases=tuple(phase or ()), arms=KUBERNETES_ARMS)
    )
    if dry_run == "none":
        typer.echo(as_yaml(objects), nl=False)
        return
    refused = asyncio.run(_ask(access_of(context, kubeconfig, allow_context), objects))
    if refused:
        raise ClusterError(f"{refused} of {len(objects)} objects were refused")


async def _ask(access: Access, objects: Sequence[Object]) -> int:
    """Print a line for each object; returns how many were refused."""
    from kabench.backends.kubernetes.api import open_cluster
    from kabench.backends.kubernetes.rendering import asked

    refused = 0
    async with open_cluster(access) as cluster:
        async for one, refusal in asked(cluster, objects):
            refused += bool(refusal)
            typer.echo(f"{one['kind']} {one['metadata']['name']}: {refusal or 'accepted'}")
    return refused
