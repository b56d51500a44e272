"""Which nodes are noisy in a block, which share CPUs with those, and which are quiet.

Only the plan, the pins and the analysis ask for roles; a placement policy never sees them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

Role = Literal["noisy", "shared", "quiet"]


def roles(nodes: Mapping[str, tuple[str, frozenset[int]]], noisy: Collection[str]) -> dict[str, Role]:
    """The role of every node, given as name -> (boot id, CPUs that its agent may run on).

    Quiet is a node whose CPUs are disjoint from those of every noisy node on the same machine (one boot id is
    one machine); a node that merely shares CPUs with a noisy one is neither, so it is "shared".

    Raises:
        ValueError: a noisy node is not among `nodes`.
    """
    unknown = sorted(set(noisy) - nodes.keys())
    if unknown:
        raise ValueError(f"no node {unknown[0]!r}")
    loud = {(boot_id, cpu) for name in noisy for boot_id, cpus in [nodes[name]] for cpu in cpus}
    found: dict[str, Role] = {}
    for name, (boot_id, cpus) in nodes.items():
        if name in noisy:
            found[name] = "noisy"
        else:
            found[name] = "shared" if any((boot_id, cpu) in loud for cpu in cpus) else "quiet"
    return found
