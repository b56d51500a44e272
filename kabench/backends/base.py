"""What the controller needs of a place to run in.

A backend is entered once a run and yields a fleet: nodes, and agents that stay. For every round the controller calls, in
this order: `start_noise`, (probes the nodes through the agents), `place`, (measures), `clear`, `stop_noise`. Leaving the
context ends everything the fleet started, whatever state it is in.

The agents are reached over HTTP on every backend; nothing here talks to them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kabench.core.contention import Contention
from kabench.core.identity import Kind
from kabench.core.plan import Costs
from kabench.core.spec import Phase, Scenario

STANDING = "standing"
"""Where a target is that stands already, as far as we know: on none of our nodes."""


@dataclass(frozen=True)
class Node:
    """A worker. `cpus` are those its agent may run on; on one machine (one `boot_id`) they tell who shares with whom.

    Only the agent can say either for sure: a backend that does not know them leaves them empty, and the controller fills
    them in.
    """

    name: str
    cpu_millis: int
    memory_bytes: int
    cpus: frozenset[int] = frozenset()
    boot_id: str = ""


@dataclass(frozen=True)
class AgentEndpoint:
    """How to call an agent: `base_url` without a trailing slash, the run's token, headers and TLS the way there needs.

    Attributes:
        patience_s: how long a call that may be repeated is tried again while no answer comes: something on the way there
            may be starting anew.
    """

    node: str
    base_url: str
    token: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ssl: Any = None
    patience_s: float = 0.5


@dataclass(frozen=True)
class Round:
    """One phase in one block: what is placed and measured between two clear-ups.

    Attributes:
        roles: of every node, for pins; no policy or scheduler is told.
        nodes: all of them, with what their agents said.
    """

    window: str
    block: int
    phase: Phase
    noise_nodes: tuple[str, ...]
    seed: int
    roles: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True)
class PlacedTarget:
    """A fresh replica, where it is and who decided so.

    Attributes:
        decided_by: "simulated:default", "pin:quiet", or the component of the `Scheduled` event.
        pending_ns: from the request to the binding.
        reason: what the decision rested on, for the record.
    """

    name: str
    workload: str
    kind: Kind
    node: str
    host: str
    port: int
    decided_by: str
    pending_ns: int = 0
    reason: Mapping[str, float] = field(default_factory=dict)


def standing_targets(scenario: Scenario, phase: Phase) -> list[PlacedTarget]:
    """The targets of a phase that places nothing: each one server, where its address says."""
    found = []
    for target in scenario.targets:
        assert target.address is not None, "the scenario is checked"
        host, _, port = target.address.rpartition(":")
        found.append(
            PlacedTarget(
                name=target.name,
                workload=target.name,
                kind=Kind(target.kind),
                node=STANDING,
                host=host.removeprefix("[").removesuffix("]"),
                port=int(port),
                decided_by=phase.way,
            )
        )
    return found


@dataclass(frozen=True)
class NoiseWork:
    """What one stressor did in a round. `ops` are in the tool's own unit: compare equal `tool`s only."""

    node: str
    stressor: str
    tool: str
    seconds: float
    ops: float | None
    cpu_seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Casualty:
    """Something of ours that ended before its time.

    `role` is agent, target, noise or awake; `at_ns` is monotonic, the controller's.
    """

    role: str
    name: str
    node: str
    at_ns: int
    reason: str


@dataclass(frozen=True)
class CpuUsage:
    """CPU time since the boot, by CPU: all of it (steal included), and that of processes the fleet started."""

    at_ns: int
    busy_ns: Mapping[int, int]
    own_ns: Mapping[int, int]


class Fleet(Protocol):
    """Nodes and agents in place, ready for rounds."""

    @property
    def nodes(self) -> Sequence[Node]:
        """All workers, by name."""
        ...

    @property
    def agents(self) -> Sequence[AgentEndpoint]:
        """The agents that live, by node."""
        ...

    async def start_noise(self, round_: Round) -> None:
        """Start the scenario's stressors on `round_.noise_nodes` and decoys elsewhere; return once they work.

        Raises:
            ClusterError: the noise cannot be started.
        """
        ...

    async def stop_noise(self) -> Sequence[NoiseWork]:
        """End the noise and say what it did. Without noise: an empty list."""
        ...

    async def place(self, round_: Round, contention: Mapping[str, Contention]) -> Sequence[PlacedTarget]:
        """Bring up fresh replicas of all targets the way `round_.phase` says, and return where they are.

        They are started, not yet ready: agents wait for them. In a standing phase nothing is started, and the targets are
        those of `standing_targets`. `contention` was measured just before, by node; where a scheduler of its own decides, it
        is not used.

        Raises:
            ClusterError: a replica fits nowhere, or does not start.
        """
        ...

    def measuring(self, round_: Round) -> AbstractContextManager[None]:
        """Held while the window runs: the controller keeps out of the quiet nodes' way where it shares CPUs with them."""
        ...

    async def clear(self) -> None:
        """Remove the round's targets. Idempotent."""
        ...

    async def heal(self, silent: Collection[str] = ()) -> Sequence[str]:
        """Restart agents that died, and those on `silent` nodes, which no longer answer and are ended first.

        Returns the nodes concerned; `agents` is current afterwards. What the old agents had written stays held.
        """
        ...

    def casualties(self) -> Sequence[Casualty]:
        """What ended before its time since the last call."""
        ...

    async def cpu_usage(self) -> CpuUsage | None:
        """CPU time by CPU, or None where it cannot be told apart."""
        ...

    def environment(self) -> Mapping[str, Any]:
        """Versions, tools and settings that belong beside the results."""
        ...


class Backend(Protocol):
    """A place to run in."""

    name: str
    placement_note: str
    """What every output says of the placements: "simulated placement", or nothing."""
    costs: Costs
    arms: Mapping[str, Mapping[str, str]]
    """What `--phase NAME` means here, and the built-in scenario's phases in their order: name -> its way."""
    quick_arms: int
    """How many of them a quick run has."""

    def started(
        self, scenario: Scenario, run: str, folder: Path, token: str
    ) -> AbstractAsyncContextManager[Fleet]:
        """Bring up nodes and agents for `scenario`; agents keep their logs below `folder`/spool/NODE.

        Raises:
            ClusterError: this place cannot; the message says what is missing and what to do.
            SpecError: the scenario asks for what no place of this kind has (more replicas than fit, a scheduler).
        """
        ...
