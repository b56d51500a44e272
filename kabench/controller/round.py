"""One round: one phase of one block, from the noise's start to its end.

The order of steps is the same for every phase, and so is their timing as far as the controller can make it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kabench.backends.base import Casualty, CpuUsage, Fleet, PlacedTarget, Round
from kabench.clock import Clock
from kabench.controller.crew import Crew, Failures, first_of
from kabench.controller.observer import Observer
from kabench.controller.orders import prepare_orders
from kabench.core.contention import Contention
from kabench.core.journal import RoundStarted
from kabench.core.plan import BlockPlan
from kabench.core.result import AgentWindow, NoiseRecord, Placement, RoundRecord
from kabench.core.spec import NS_PER_MS, NS_PER_S, Phase, Scenario
from kabench.errors import AgentError, ClusterError, KabenchError, SpecError, StoreError, TargetLost
from kabench.store import RunStore

ARM_MARGIN_NS = 500_000_000
"""From arming to the first request of the warm-up: calls to a few agents take milliseconds, and 0.4 s where one is on a
noisy node with the API server beside it. Who is late is missing from its block, which is void then."""

ARM_MARGIN_PER_AGENT_NS = 4_000_000
"""Beside it: a call costs us 0.3 ms of CPU time, and on a busy machine several times that; who is armed late refuses."""

GRACE_NS = 5 * NS_PER_S
"""How long after the longest possible drain an agent may take to seal its log."""


@dataclass
class _Notes:
    """What a round has seen so far: kept apart, so that a round that fails half-way is recorded with what it had."""

    placements: list[Placement] = field(default_factory=list)
    agents: list[AgentWindow] = field(default_factory=list)
    contention: dict[str, Contention] = field(default_factory=dict)
    noise: list[NoiseRecord] = field(default_factory=list)
    casualties: list[dict[str, Any]] = field(default_factory=list)
    strangers: dict[str, float] | None = None
    armed: bool = False
    error: str = ""


class RoundRunner:
    """Runs rounds on one fleet, with one crew."""

    def __init__(
        self, scenario: Scenario, fleet: Fleet, crew: Crew, store: RunStore, observer: Observer, clock: Clock
    ) -> None:
        self._scenario, self._fleet, self._crew = scenario, fleet, crew
        self._store, self._observer, self._clock = store, observer, clock
        self._unheard: set[str] = set()  # nodes whose agents did not seal while they were listened to

    async def measure(self, plan: BlockPlan, phase: Phase, window: str) -> RoundRecord:
        """Run `phase` of `plan` and return its record. A failure of the fleet or of agents is in the record.

        Raises:
            SpecError, StoreError: nothing that another round could do better.
        """
        round_ = Round(
            window,
            plan.block,
            phase,
            tuple(plan.noise_nodes),
            self._scenario.seed,
            plan.roles,
            self._crew.nodes,
        )
        started = self._clock.realtime_ns()
        notes = _Notes()
        self._unheard.clear()
        hopeless: BaseException | None = None
        try:
            async with self._noise(round_, notes), self._targets():
                await self._inside(round_, plan, notes)
        except* (SpecError, StoreError) as group:
            hopeless = first_of(group)
        except* KabenchError as group:
            notes.error = str(first_of(group))
        if hopeless:
            raise hopeless  # not above: until 3.11.4, Python wraps what is raised in an `except*` in a group of its own
        if notes.armed:  # with the noise gone, reading the logs takes a fifth of the time
            for agent in self._store.agent_windows(window, plan.roles, self._offsets()):
                notes.agents.append(agent)
                await asyncio.sleep(0)  # a thousand logs take half a minute: signals are heard between two
        notes.casualties.extend(_casualty(c) for c in self._fleet.casualties())
        return RoundRecord(
            window=window,
            block=plan.block,
            phase=phase.name,
            placements=notes.placements,
            agents=notes.agents,
            contention=notes.contention,
            noise=notes.noise,
            casualties=notes.casualties,
            strangers_cpu_share=notes.strangers,
            started_realtime_ns=started,
            error=notes.error,
        )

    @contextlib.asynccontextmanager
    async def _noise(self, round_: Round, notes: _Notes) -> AsyncIterator[None]:
        self._observer.stage("noise")
        try:
            await self._fleet.start_noise(round_)
            yield
        finally:
            work = await self._fleet.stop_noise()
            notes.noise.extend(NoiseRecord(**asdict(done)) for done in work)

    @contextlib.asynccontextmanager
    async def _targets(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._fleet.clear()

    async def _inside(self, round_: Round, plan: BlockPlan, notes: _Notes) -> None:
        if not round_.phase.standing:
            self._observer.stage("probe")
            notes.contention, failures = await self._crew.probe()
            self._report(failures)
        self._observer.stage("place")
        placed = await self._fleet.place(round_, notes.contention)
        notes.placements = [_placement(target, plan.roles) for target in placed]
        self._observer.stage("prepare")
        ready = await self._prepare(round_, placed)
        try:
            await self._run_window(round_, plan, ready, notes)
        finally:
            self._observer.stage("collect")
            notes.armed = True
            self._report(await self._crew.collect(self._store, round_.window, doubtful=self._unheard))

    async def _prepare(self, round_: Round, placed: Sequence[PlacedTarget]) -> list[str]:
        """Prepare all agents; returns the nodes that are ready.

        Raises:
            TargetLost: an agent lives and could not get its targets ready.
        """
        orders = prepare_orders(self._scenario, self._store.run, round_, placed, sorted(self._crew.members))
        ready, failures = await self._crew.prepare(orders)
        self._report(failures)
        refusals = [error for error in failures.values() if type(error) is AgentError]
        if refusals:
            await self._crew.abort()
            raise TargetLost(str(refusals[0])) from refusals[0]
        if not ready:
            raise ClusterError("no agent got ready; see the notes above for each one's reason")
        return sorted(ready)

    async def _run_window(self, round_: Round, plan: BlockPlan, nodes: Sequence[str], notes: _Notes) -> None:
        timing = self._scenario.timing
        warm_up_ns, window_ns = round(timing.warm_up_s * NS_PER_S), round(timing.window_s * NS_PER_S)
        margin_ns = ARM_MARGIN_NS + len(nodes) * ARM_MARGIN_PER_AGENT_NS
        now = self._clock.realtime_ns()
        self._store.append(RoundStarted(round_.window, round_.block, round_.phase.name, now))
        # after the journal: a busy disk takes its time
        start_ns = self._clock.monotonic_ns() + margin_ns + warm_up_ns
        failures = await self._crew.arm(round_.window, start_ns, nodes)
        self._report(failures)
        armed = [node for node in nodes if node not in failures]
        self._observer.stage("measure")
        with self._fleet.measuring(round_):
            usage = await self._watch(round_, armed, start_ns, window_ns)
        if failures:
            # armed too late, they would sit prepared and refuse the next round
            await self._crew.abort(failures)
        notes.strangers = strangers_share(*usage, self._quiet_cpus(plan))

    async def _watch(
        self, round_: Round, armed: Sequence[str], start_ns: int, window_ns: int
    ) -> tuple[CpuUsage | None, CpuUsage | None]:
        """See the window through to the last agent's seal; CPU time at its two ends."""
        left_ns = start_ns + window_ns - self._clock.monotonic_ns()
        deadline_s = longest_s(left_ns, self._scenario.load.timeout_ms)
        async with asyncio.TaskGroup() as group:
            usage = group.create_task(self._watch_cpus(start_ns, window_ns), name="cpu usage")
            for node in armed:
                group.create_task(self._follow(node, round_.window, deadline_s), name=f"follow {node}")
        return usage.result()

    async def _follow(self, node: str, window: str, longest_s: float) -> None:
        """Pass the agent's intervals on until it has sealed; an agent lost on the way is reported, not raised."""
        try:
            async with asyncio.timeout(longest_s):
                async for interval in self._crew.members[node].link.stream(window):
                    self._observer.interval(node, interval)
        except AgentError as error:
            self._unheard.add(node)
            self._report({node: error})
        except TimeoutError:
            self._unheard.add(node)
            self._report({node: AgentError(f"did not seal {window} within {longest_s:.0f} s")})

    async def _watch_cpus(self, start_ns: int, window_ns: int) -> tuple[CpuUsage | None, CpuUsage | None]:
        """CPU time at the two ends of the window. A sample costs a millisecond or two, so it is taken outside of it."""
        await self._sleep_until(start_ns - 50 * NS_PER_MS)
        before = await self._fleet.cpu_usage()
        await self._sleep_until(start_ns + window_ns)
        return before, await self._fleet.cpu_usage()

    async def _sleep_until(self, instant_ns: int) -> None:
        await asyncio.sleep(max(0, instant_ns - self._clock.monotonic_ns()) / NS_PER_S)

    def _quiet_cpus(self, plan: BlockPlan) -> frozenset[int]:
        quiet = (node.cpus for node in self._crew.nodes if plan.roles.get(node.name) == "quiet")
        return frozenset[int]().union(*quiet)

    def _offsets(self) -> dict[str, tuple[int, int]]:
        return {n: (m.offset.offset_ns, m.offset.error_ns) for n, m in self._crew.members.items()}

    def _report(self, failures: Failures) -> None:
        for node, error in failures.items():
            self._observer.note(f"{node}: {error}")


def longest_s(left_ns: int, timeout_ms: float) -> float:
    """How long agents may take to seal a window that ends in `left_ns`; less than none where arming took longer than it."""
    return (max(0, left_ns) + timeout_ms * NS_PER_MS + GRACE_NS) / NS_PER_S


def strangers_share(
    before: CpuUsage | None, after: CpuUsage | None, cpus: frozenset[int]
) -> dict[str, float] | None:
    """The share of each of `cpus` that processes which are not ours used between two samples; None where unknown."""
    if before is None or after is None or after.at_ns <= before.at_ns:
        return None
    elapsed = after.at_ns - before.at_ns
    shares = {}
    for cpu in sorted(cpus):
        busy = after.busy_ns.get(cpu, 0) - before.busy_ns.get(cpu, 0)
        own = after.own_ns.get(cpu, 0) - before.own_ns.get(cpu, 0)
        share = (
            busy - own
        ) / elapsed  # the kernel counts in ticks, so a busy second may have a tick too many
        shares[str(cpu)] = round(min(1.0, max(0.0, share)), 4)
    return shares


def _placement(target: PlacedTarget, roles: Mapping[str, str]) -> Placement:
    return Placement(
        target=target.name,
        workload=target.workload,
        kind=target.kind,
        node=target.node,
        role=roles.get(target.node, ""),
        decided_by=target.decided_by,
        pending_ns=target.pending_ns,
        reason=dict(target.reason),
    )


def _casualty(casualty: Casualty) -> dict[str, Any]:
    return asdict(casualty)
