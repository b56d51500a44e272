"""The nodes that a phase's targets may be on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kabench.backends.base import Node
from kabench.core.spec import Phase
from kabench.errors import ClusterError


def nodes_for(
    phase: Phase, nodes: Sequence[Node], roles: Mapping[str, str], noise_nodes: Sequence[str]
) -> list[Node]:
    """All nodes, or those of the role that the phase is pinned to.

    Raises:
        ClusterError: none has that role.
    """
    if phase.pin is None:
        return list(nodes)
    found = [node for node in nodes if roles[node.name] == phase.pin]
    if not found:
        raise ClusterError(_none(phase, nodes, noise_nodes))
    return found


def _none(phase: Phase, nodes: Sequence[Node], noise_nodes: Sequence[str]) -> str:
    if phase.pin == "noisy":
        return f"phase {phase.name} is pinned to noisy nodes and there is no noise"
    if len({node.boot_id for node in nodes}) > 1:
        return (
            f"phase {phase.name} is pinned to quiet nodes and there are none beside {', '.join(noise_nodes)}"
        )
    cpus = sorted(frozenset[int]().union(*(node.cpus for node in nodes)))
    return (
        f"phase {phase.name} is pinned to quiet nodes and there are none: every node shares a CPU with the noise on "
        f"{', '.join(noise_nodes)} (CPUs of this machine: {', '.join(map(str, cpus))}); nothing can be separated here"
    )
