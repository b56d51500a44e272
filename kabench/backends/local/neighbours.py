"""The noisy neighbours of a run: which stressors work where, when they stand still, and what they did in a round."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from kabench.backends.base import Node, NoiseWork
from kabench.backends.local.accounting import Accounting
from kabench.backends.local.noise import (
    RunningNoise,
    StressTool,
    account_of,
    available_memory_bytes,
    check_memory,
    wait_until_working,
    work_done,
)
from kabench.backends.local.processes import Child, Processes
from kabench.backends.stressors import StressAccount
from kabench.backends.tasks import all_of
from kabench.clock import Clock
from kabench.core.spec import NS_PER_S, Stressor
from kabench.errors import ClusterError

MARGIN_S = 60
"""Noise outlives the longest round by so much, and then ends by itself."""

LASTS_S = 3600
"""So long the built-in stressor lives: a process that has no time left for a whole round is replaced."""

GRACE_S = 3.0
"""For a stressor to say what it did, or to end."""

Start = Callable[[Sequence[str], str, Node], Child]
"""Starts a command under a name, bound to a node's CPUs."""


class NoisyNeighbours:
    """Starts, moves, holds and ends a run's stressors.

    Each worker is a process of its own: in one session, several would weigh as much as one. The built-in stressor stays from
    the first round to the last: between rounds it stands still, and for another node it is bound to other CPUs. Memory that
    ends with a process is, in many a virtual machine, given back to its host some seconds later, in the next round's window,
    and all CPUs stand still for it again and again. stress-ng tells what it did at its end only, so it is started anew for
    each round, and never stands still.

    Args:
        tool: what makes the noise.
        stressors: what each noisy node has.
        folder: where stress-ng may write.
        longest_s: how long a round can take.
        start: starts a process.
        processes: whose children they are.
        accounting: whose CPU time is accounted there.
        clock: tells how long a round's noise worked.
    """

    def __init__(
        self,
        tool: StressTool,
        stressors: Sequence[Stressor],
        folder: Path,
        longest_s: int,
        *,
        start: Start,
        processes: Processes,
        accounting: Accounting,
        clock: Clock,
    ) -> None:
        self._tool, self._folder, self._longest_s = tool, folder, longest_s
        self._stressors = stressors
        self._alone = [one.model_copy(update={"workers": 1}) for one in stressors for _ in range(one.workers)]
        self._start, self._processes, self._accounting, self._clock = start, processes, accounting, clock
        self._working: dict[int, RunningNoise] = {}
        self._resting: dict[int, RunningNoise] = {}
        self._began_ns = 0
        self._held_since_ns: int | None = None
        self._held_ns = 0

    async def start(self, nodes: Sequence[Node]) -> None:
        """Have every stressor work on every one of `nodes`; returns when all do.

        Raises:
            ClusterError: there is not the memory for it, or one does not start.
        """
        self._began_ns, self._held_ns, self._held_since_ns = self._clock.monotonic_ns(), 0, None
        if not self._resting:
            check_memory(self._tool, self._stressors, len(nodes), available_memory_bytes())
        places = [(node, stressor) for node in nodes for stressor in self._alone]
        tired = [noise.child for noise in self._resting.values() if not self._has_time(noise)]
        await self._processes.end(tired, GRACE_S)
        for number, (node, stressor) in enumerate(places, start=1):
            noise = self._resting.pop(number, None)
            if noise is None or noise.child.exit is not None:
                noise = self._started(number, stressor, node)
            elif noise.child.cpus != node.cpus:
                self._accounting.move(noise.child, node.name, node.cpus)
            noise.child.node = node.name
            self._working[number] = noise
        self._processes.release(self._children)
        await all_of({n.child.name: wait_until_working(n, self._processes) for n in self._working.values()})
        self._began_ns = self._clock.monotonic_ns()

    def hold(self) -> None:
        """Have the noise stand still until `release`.

        stress-ng goes on: were it stopped, its workers would outlive a controller that is killed, since what they ask to be
        sent at their parent's end is a signal that waits for as long as they stand still.
        """
        if self._tool.lasts:
            self._processes.hold(self._children)
            self._held_since_ns = self._clock.monotonic_ns()

    def release(self) -> None:
        """Have it go on, if it stands still."""
        if self._held_since_ns is not None:
            self._processes.release(self._children)
            self._held_ns += self._clock.monotonic_ns() - self._held_since_ns
            self._held_since_ns = None

    async def stop(self) -> list[NoiseWork]:
        """End the round's noise, or have it rest, and say what it did."""
        self.release()
        now_ns = self._clock.monotonic_ns()
        working, self._working = self._working, {}
        told = await all_of({noise.child.name: self._asked(noise) for noise in working.values()})
        for (number, noise), account in zip(working.items(), told, strict=True):
            if account:
                self._processes.hold([noise.child])
                self._resting[number] = noise
        ending = [noise.child for noise, account in zip(working.values(), told, strict=True) if not account]
        await self._processes.end(ending, GRACE_S)
        return [
            self._ended(noise) if account is None else self._rested(noise, account, now_ns)
            for noise, account in zip(working.values(), told, strict=True)
        ]

    def _started(self, number: int, stressor: Stressor, node: Node) -> RunningNoise:
        seconds = self._longest_s + MARGIN_S
        if self._tool.lasts:
            seconds = max(seconds, LASTS_S)
        name = f"{stressor.kind}-{number}"
        report = self._folder / f"{name}.yaml"
        report.unlink(missing_ok=True)
        child = self._start(self._tool.command(stressor, seconds, report), name, node)
        return RunningNoise(child, stressor, self._tool, report, child.started_ns + seconds * NS_PER_S)

    def _has_time(self, noise: RunningNoise) -> bool:
        return self._clock.monotonic_ns() + self._longest_s * NS_PER_S <= noise.until_ns

    async def _asked(self, noise: RunningNoise) -> StressAccount | None:
        """What it did by now; None of one that cannot tell, or only at its end."""
        child = noise.child
        if not self._tool.lasts or not child.lines():
            return None
        self._processes.send(child, signal.SIGUSR1)
        try:
            await self._processes.line(child, 1 + noise.told, GRACE_S)
        except ClusterError:
            return None  # it ended, or hangs and is ended
        return account_of(noise) if child.exit is None else None

    def _rested(self, noise: RunningNoise, account: StressAccount, now_ns: int) -> NoiseWork:
        work = work_done(noise, account, (now_ns - self._began_ns - self._held_ns) / NS_PER_S)
        noise.before, noise.told = account, noise.told + 1
        return work

    def _ended(self, noise: RunningNoise) -> NoiseWork:
        account, ended = account_of(noise), noise.child.exit
        assert ended is not None, "read after its end"
        if account and not self._tool.lasts:
            return work_done(noise, account, account.seconds)
        return work_done(noise, account, max(0, ended.at_ns - self._began_ns - self._held_ns) / NS_PER_S)

    @property
    def _children(self) -> list[Child]:
        return [noise.child for noise in self._working.values()]
