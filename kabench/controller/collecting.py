"""What agents still hold of a run whose controller is gone: asked for, and fetched into the run's folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kabench.controller.crew import Crew
from kabench.controller.results import build_result
from kabench.errors import AgentError
from kabench.store import RunStore

WINDOW_S = 120.0
"""How long to wait for windows that are under way: agents hand over nothing that they still write."""
LOOK_S = 0.5
IN_WINDOW = ("armed", "running", "draining")


@dataclass(frozen=True)
class Held:
    """Logs that nobody has acknowledged.

    Attributes:
        logs: how many each agent holds, by node.
        unknown: why it is not known of an agent, by node.
    """

    logs: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many logs are known of."""
        return sum(self.logs.values())


async def held(crew: Crew, run: str) -> Held:
    """Ask every member for the logs of `run`."""
    logs: dict[str, int] = {}
    unknown: dict[str, str] = {}

    async def ask(node: str) -> None:
        try:
            windows = (await crew.members[node].link.windows()).windows
        except AgentError as error:
            unknown[node] = str(error)
        else:
            logs[node] = sum(state.run == run for state in windows)

    async with asyncio.TaskGroup() as tasks:
        for node in crew.members:
            tasks.create_task(ask(node), name=f"windows of {node}")
    return Held(dict(sorted(logs.items())), dict(sorted(unknown.items())))


async def settled(crew: Crew, waiting: Callable[[list[str]], None]) -> None:
    """Wait until no window is under way, or for as long as WINDOW_S; `waiting` is told once on which nodes one is."""
    try:
        async with asyncio.timeout(WINDOW_S):
            busy = await _in_window(crew)
            if busy:
                waiting(busy)
            while busy:
                await asyncio.sleep(LOOK_S)
                busy = await _in_window(crew)
    except TimeoutError:
        return  # agents will say of each log why they keep it


async def fetch(crew: Crew, store: RunStore) -> Held:
    """Fetch all logs of the store's run from every member; returns how many each has handed over, and who could not.

    Where the folder has the run's journal, its results are built anew with what came. It is for a run whose controller is
    gone: one that lives would miss what is fetched here.

    Raises:
        StoreError: the folder cannot be written.
    """
    before = await held(crew, store.run)
    failures = {node: str(error) for node, error in (await crew.collect(store)).items()}
    after = await held(crew, store.run)
    fetched = {
        node: count - after.logs.get(node, 0)
        for node, count in before.logs.items()
        if node not in after.unknown
    }
    if any(fetched.values()) and store.journal():
        store.write_result(build_result(store))
    return Held(fetched, dict(sorted({**before.unknown, **after.unknown, **failures}.items())))


async def _in_window(crew: Crew) -> list[str]:
    """The nodes whose agents are in a window; of those that do not answer, nothing is waited for."""
    busy = []
    for node, member in crew.members.items():
        try:
            status = await member.link.status()
        except AgentError:
            continue
        if status.state in IN_WINDOW:
            busy.append(node)
    return busy
