"""Brings the local fleet up, and takes all of it down again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from kabench.backends.base import Fleet
from kabench.backends.local.fleet import LocalFleet, Tools
from kabench.backends.local.limits import allow_connections
from kabench.backends.local.noise import find_stress_tool
from kabench.backends.local.processes import Processes
from kabench.backends.local.servers import LOOPBACK, find_redis_server, free_port
from kabench.backends.local.slots import local_nodes
from kabench.backends.simulation import SimulatedScheduler
from kabench.clock import Clock, SystemClock
from kabench.core.identity import Kind
from kabench.core.plan import LOCAL
from kabench.core.scenario import LOCAL_ARMS
from kabench.core.spec import Scenario
from kabench.errors import ClusterError, SpecError, StoreError


def agent_command(node: str, null_port: int, spool: Path) -> list[str]:
    """The agent, on a port that it picks and prints; its token comes in the environment, where `ps` does not show it."""
    return [
        *(sys.executable, "-m", "kabench_agent", "--node", node, "--listen", f"{LOOPBACK}:0"),
        *("--spool", str(spool), "--null", f"{LOOPBACK}:{null_port}"),
    ]


class LocalBackend:
    """This machine as a cluster: `scenario.agents` nodes, each with its share of the CPUs.

    Args:
        agent: makes the agent's command from node, null echo's port and spool folder.
        pick_port: finds ports for servers that cannot pick their own.
        clock: dates casualties and samples.
    """

    name = "local"
    placement_note = "simulated placement"
    costs = LOCAL
    arms = LOCAL_ARMS
    quick_arms = 2

    def __init__(
        self,
        agent: Callable[[str, int, Path], list[str]] = agent_command,
        pick_port: Callable[[], int] = free_port,
        clock: Clock | None = None,
    ) -> None:
        self._agent, self._pick_port, self._clock = agent, pick_port, clock or SystemClock()

    @contextlib.asynccontextmanager
    async def started(self, scenario: Scenario, run: str, folder: Path, token: str) -> AsyncIterator[Fleet]:
        """Bring up `scenario.agents` slots with an agent each; children's logs go to `folder`/proc.

        Raises:
            ClusterError: not Linux, a program is missing or does not start, no node can be quiet where one must, or more
                connections are asked for than the system allows.
            SpecError: a phase needs a real scheduler, a pod a cluster, or there are more replicas than can be placed.
            StoreError: `folder` cannot be written.
        """
        _require_linux()
        _refuse_own_pods(scenario)
        nodes = local_nodes(scenario.agents)
        SimulatedScheduler(scenario, nodes).check()
        allow_connections(scenario)
        tools = await asyncio.to_thread(self._find_tools, scenario)
        temporary = folder / "tmp"
        try:
            temporary.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{temporary}: {error.strerror}") from error
        processes = Processes(folder / "proc", self._clock)
        try:
            fleet = LocalFleet(scenario, nodes, folder, token, tools, processes, self._clock)
            await fleet.start_agents()
            yield fleet
        finally:
            try:
                await processes.end(list(processes.live))
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _find_tools(self, scenario: Scenario) -> Tools:
        needs_redis = not scenario.standing and any(target.kind == Kind.REDIS for target in scenario.targets)
        return Tools(
            agent=self._agent,
            redis=find_redis_server() if needs_redis else None,
            stress=find_stress_tool() if scenario.noise.nodes and scenario.noise.stressors else None,
            pick_port=self._pick_port,
        )


def _refuse_own_pods(scenario: Scenario) -> None:
    """Own pods are images; here are processes only."""
    own = [f"target {target.name}" for target in scenario.targets if target.pod is not None]
    own += [f"stressor {one.label}" for one in scenario.noise.stressors if one.pod is not None]
    if own:
        raise SpecError(f"{own[0]}: a pod of your own needs --backend kubernetes")


def _require_linux() -> None:
    if sys.platform != "linux":
        raise ClusterError(
            "the local backend needs Linux: it binds processes to CPUs; run it there, or use --backend kubernetes"
        )
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        raise ClusterError(f"the local backend needs Linux 5.3 or newer: pidfd_open: {error}") from error
