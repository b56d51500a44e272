"""What this machine allows of connections, asked before a run that needs more of them fails half-way."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

from kabench.core.spec import Scenario
from kabench.errors import ClusterError

FILES_BESIDE = 64
"""Open files of an agent beside its connections: its listener, the controller's calls, logs, event loop, libraries."""

PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def allow_connections(scenario: Scenario) -> None:
    """Let the agents, which inherit our limit, open as many files as the scenario's connections need.

    Raises:
        ClusterError: the system allows fewer, or has fewer ports.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    needed = files_of_agent(scenario)
    if allowed != unlimited and allowed < needed:
        if most != unlimited and most < needed:
            each = (most - FILES_BESIDE) // len(_replicas(scenario))
            raise ClusterError(
                f"--connections: an agent needs {needed} open files, and a process may have {most}: raise the hard limit "
                f"(ulimit -Hn), or give {max(1, each)} connections of an agent to each target at most"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    check_ports(scenario, local_ports())


def files_of_agent(scenario: Scenario) -> int:
    """How many files an agent may have open at a time."""
    return len(_replicas(scenario)) * scenario.load.connections + FILES_BESIDE


def check_ports(scenario: Scenario, ports: int | None) -> None:
    """Refuse more connections to one address than there are ports on our side of it.

    Raises:
        ClusterError: there are too few.
    """
    asked = scenario.agents * scenario.load.connections
    if ports is not None and asked > ports:
        raise ClusterError(
            f"--connections: {asked} to one address need as many local ports, and there are {ports} "
            f"({PORT_RANGE}): widen the range, or give fewer"
        )


def local_ports(read: Callable[[], str] = PORT_RANGE.read_text) -> int | None:
    """How many ports outgoing connections may have; None where it is not known."""
    try:
        first, last = map(int, read().split())
    except (OSError, ValueError):
        return None
    return last - first + 1


def _replicas(scenario: Scenario) -> list[str]:
    return [target.name for target in scenario.targets for _ in range(target.replicas)]
