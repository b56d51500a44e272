"""The flags by which every command that needs a cluster finds it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kabench.backends.kubernetes.access import Access

Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; by default the current one.")]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="By default $KUBECONFIG, then ~/.kube/config.", dir_okay=False)
]
AllowContext = Annotated[
    str | None,
    typer.Option(help="Repeat the context's name here to use a cluster that is not kabench's own."),
]
Transport = Annotated[
    str, typer.Option(help="How agents are reached: proxy (the API server's) or direct (pod IPs).")
]


def access_of(
    context: str | None,
    kubeconfig: Path | None,
    allow_context: str | None,
    transport: str = "proxy",
    alongside: bool = False,
) -> Access:
    """The flags together.

    Raises:
        SpecError: a value is none that there is.
    """
    from kabench.backends.kubernetes.access import Access
    from kabench.errors import SpecError

    if transport not in ("proxy", "direct"):
        raise SpecError(f"--transport {transport}: give proxy or direct")
    return Access(
        context, kubeconfig, allow_context, "direct" if transport == "direct" else "proxy", alongside
    )
