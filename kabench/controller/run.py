"""The run: blocks after blocks, until enough of them are valid or the budget is spent.

The journal is written before and after each step, so that whatever ends the run, what was measured can be read and the
run can be resumed after its last whole block.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kabench import __version__
from kabench.analysis.validity import judge
from kabench.backends.base import Backend, Fleet
from kabench.clock import Clock, SystemClock
from kabench.controller.crew import Crew
from kabench.controller.observer import Observer
from kabench.controller.results import build_result
from kabench.controller.round import GRACE_NS, RoundRunner
from kabench.core.identity import window_name
from kabench.core.journal import (
    BlockClosed,
    BlockStarted,
    Event,
    FleetReady,
    RoundEnded,
    RunEnded,
    RunStarted,
)
from kabench.core.plan import BlockPlan, plan_blocks
from kabench.core.result import BlockRecord, NodeRecord, RoundRecord, RunResult, VoidReason
from kabench.core.spec import NS_PER_S, Scenario
from kabench.errors import ClusterError, KabenchError
from kabench.store import RunStore

HOPELESS = 3
"""So many blocks in a row that failed before they measured anything end the run: the next would fail too."""


@dataclass
class Progress:
    """How far a run is, from its journal: all that decides what comes next."""

    valid: int = 0
    void: int = 0
    interrupted: int = 0
    last_block: int = 0
    failed_in_row: int = 0
    rounds: int = 0
    """Of this session, as is the time that they took: `spent_s`."""
    spent_s: float = 0.0

    @classmethod
    def of(cls, journal: Sequence[Event]) -> Progress:
        """Read the journal of an earlier session; a block that was begun and not closed is interrupted."""
        closed = [event for event in journal if isinstance(event, BlockClosed)]
        begun = [event.block for event in journal if isinstance(event, BlockStarted)]
        valid = sum(event.valid for event in closed)
        return cls(valid, len(closed) - valid, len(begun) - len(closed), max(begun, default=0))

    def wants_block(self, scenario: Scenario, elapsed_s: float) -> bool:
        """Whether another block is due: planned ones always, reserve ones while void ones need it and time is left."""
        if self.valid >= scenario.blocks.planned:
            return False
        attempts = self.valid + self.void
        if attempts < scenario.blocks.planned:
            return True
        if attempts >= scenario.blocks.planned + scenario.blocks.reserve:
            return False
        budget_s = scenario.timing.budget_s
        expected_s = (
            len(scenario.phases) * self.spent_s / self.rounds if self.rounds else 0.0
        )  # a whole block
        return budget_s is None or elapsed_s + expected_s <= budget_s

    def next_is_reserve(self, scenario: Scenario) -> bool:
        """Whether the next block replaces a void one."""
        return self.valid + self.void >= scenario.blocks.planned


async def run_benchmark(
    scenario: Scenario,
    backend: Backend,
    store: RunStore,
    observer: Observer,
    *,
    resume: bool = False,
    clock: Clock | None = None,
) -> RunResult:
    """Run `scenario` on `backend` and leave everything in `store`.

    Cancelling is safe at any point: the fleet is cleaned up, and `results.json` holds what was measured until then; the
    cancellation is raised again afterwards.

    Raises:
        SpecError: the scenario asks for what the backend does not have.
        ClusterError: the backend cannot run, or block after block failed; what was measured is kept.
        StoreError: the results folder cannot be written.
    """
    return await Session(scenario, backend, store, observer, clock or SystemClock()).run(resume=resume)


class Session:
    """One controller's life with a run. Which blocks it has is `_blocks`'s to say."""

    def __init__(
        self, scenario: Scenario, backend: Backend, store: RunStore, observer: Observer, clock: Clock
    ) -> None:
        self._scenario, self._backend, self._store = scenario, backend, store
        self._observer, self._clock = observer, clock
        self._crew = Crew(clock)
        self._began_ns = clock.monotonic_ns()
        self._progress = Progress()

    async def run(self, *, resume: bool) -> RunResult:
        """From the first step to the results, or on from where an earlier session stopped."""
        if resume:
            self._progress = Progress.of(self._store.journal())
        else:
            self._store.append(self._opening())
        try:
            await self._with_fleet()
        except asyncio.CancelledError:
            self._end("interrupted", "stopped by a signal")
            raise
        except KabenchError as error:
            self._end("failed", str(error))
            raise
        return self._end("finished", "")

    def _opening(self) -> RunStarted:
        return RunStarted(
            run=self._store.run,
            kabench=__version__,
            backend=self._backend.name,
            placement_note="" if self._scenario.standing else self._backend.placement_note,
            scenario=self._scenario.model_dump(mode="json"),
            scenario_sha256=self._scenario.fingerprint,
            seed=self._scenario.seed,
            realtime_ns=self._clock.realtime_ns(),
        )

    def _end(self, status: str, error: str) -> RunResult:
        """Write the last event and the results; whatever was measured is in them."""
        self._store.append(RunEnded(status, self._clock.realtime_ns(), error))
        result = build_result(self._store)
        self._store.write_result(result)
        self._observer.finished(result)
        return result

    async def _with_fleet(self) -> None:
        self._observer.stage("start")
        token = secrets.token_urlsafe(32)
        async with self._backend.started(self._scenario, self._store.run, self._store.folder, token) as fleet:
            try:
                await self._join(fleet)
                await self._crew.settle(self._longest_window_s())  # what an earlier session had begun
                await self._crew.collect(self._store)  # and what its agents left behind
                await self._start_canaries()
                await self._blocks(fleet)
            finally:
                await self._crew.close()

    async def _start_canaries(self) -> None:
        """Probe once while there is no noise: canaries take seconds to start beside it. What is not placed needs none."""
        if not self._scenario.standing:
            await self._crew.probe()

    def _longest_window_s(self) -> float:
        timing, load = self._scenario.timing, self._scenario.load
        return timing.warm_up_s + timing.window_s + load.timeout_ms / 1000 + GRACE_NS / NS_PER_S

    async def _join(self, fleet: Fleet) -> None:
        failures = await self._crew.join(fleet.agents)
        if failures:
            node, error = next(iter(failures.items()))
            raise ClusterError(f"the agent on {node} does not answer: {error}") from error
        self._crew.survey(fleet.nodes)
        records = [
            NodeRecord(
                name=node.name,
                cpus=sorted(node.cpus),
                boot_id=node.boot_id,
                cpu_millis=node.cpu_millis,
                memory_bytes=node.memory_bytes,
                environment=self._crew.members[node.name].hello.environment
                if node.name in self._crew.members
                else {},
            )
            for node in self._crew.nodes
        ]
        now = self._clock.realtime_ns()
        environment = dict(fleet.environment())
        self._store.append(FleetReady(records, environment, now))
        self._observer.fleet(self._crew.nodes)
        for substitute in environment.get("substitutes", ()):
            self._observer.note(substitute)

    async def _blocks(self, fleet: Fleet) -> None:
        runner = RoundRunner(self._scenario, fleet, self._crew, self._store, self._observer, self._clock)
        nodes = {node.name: (node.boot_id, node.cpus) for node in self._crew.nodes}
        progress = self._progress
        while progress.wants_block(self._scenario, self._elapsed_s()):
            began_s = self._elapsed_s()
            [plan] = plan_blocks(self._scenario, nodes, first=progress.last_block + 1, count=1)
            rounds = await self._block(plan, fleet, runner, reserve=progress.next_is_reserve(self._scenario))
            progress.last_block = plan.block
            progress.rounds += len(rounds)
            progress.spent_s += self._elapsed_s() - began_s

    def _elapsed_s(self) -> float:
        return (self._clock.monotonic_ns() - self._began_ns) / NS_PER_S

    async def _block(
        self, plan: BlockPlan, fleet: Fleet, runner: RoundRunner, *, reserve: bool = False
    ) -> list[RoundRecord]:
        """Measure the scenario's phases once, and judge the block; returns its rounds."""
        self._store.append(
            BlockStarted(
                plan.block,
                list(plan.order),
                list(plan.noise_nodes),
                dict(plan.roles),
                reserve,
                self._clock.realtime_ns(),
            )
        )
        self._observer.block_started(
            plan.block, self._scenario.blocks.planned, plan.order, plan.noise_nodes, reserve
        )
        phases = {phase.name: phase for phase in self._scenario.phases}
        rounds: list[RoundRecord] = []
        boot_ids = [await self._greet(fleet)]
        for position, name in enumerate(plan.order, 1):
            timing = self._scenario.timing
            seconds = timing.warm_up_s + timing.window_s
            self._observer.round_started(plan.block, name, position, len(plan.order), seconds)
            record = await runner.measure(plan, phases[name], window_name(plan.block, name))
            self._store.append(RoundEnded(record))
            self._observer.round_ended(record)
            rounds.append(record)
            await self._heal(fleet, record)
            if self._against(plan, reserve, rounds, [record.phase for record in rounds]):
                break  # the block is void whatever the other arms would show; a reserve block has all of them
        boot_ids.append(await self._greet(fleet))
        self._close_block(plan, reserve, rounds, boot_ids)
        return rounds

    async def _greet(self, fleet: Fleet) -> dict[str, str]:
        """Say hello again: clocks drift, and a machine that was started anew says so by its boot id. By node."""
        for node, error in (await self._crew.join(fleet.agents)).items():
            self._observer.note(f"{node}: {error}")
        return {node: member.hello.boot_id for node, member in self._crew.members.items()}

    async def _heal(self, fleet: Fleet, record: RoundRecord) -> None:
        """Bring lost agents back, so that the run goes on; the block they were lost in stays void.

        An agent that lives and does not answer is as lost as a dead one: left alone, it would void every later block.
        """
        lost = [c for c in record.casualties if c["role"] == "agent"]
        missing = [agent for agent in record.agents if agent.status != "sealed"]
        if not lost and not missing:
            return
        for node in await fleet.heal(self._crew.silent):
            self._observer.note(f"{node}: agent restarted")
        await self._greet(fleet)
        await self._crew.collect(self._store)
        await self._start_canaries()

    def _against(
        self,
        plan: BlockPlan,
        reserve: bool,
        rounds: Sequence[RoundRecord],
        phases: Sequence[str],
        boot_ids: Sequence[Mapping[str, str]] = (),
    ) -> list[VoidReason]:
        """What there is against the block, were `phases` all that it has."""
        block = BlockRecord(plan.block, list(plan.order), list(plan.noise_nodes), dict(plan.roles), reserve)
        return judge(block, rounds, self._scenario.gates, phases, sorted(plan.roles), boot_ids)

    def _close_block(
        self,
        plan: BlockPlan,
        reserve: bool,
        rounds: Sequence[RoundRecord],
        boot_ids: Sequence[Mapping[str, str]],
    ) -> None:
        phases = [phase.name for phase in self._scenario.phases]
        reasons = self._against(plan, reserve, rounds, phases, boot_ids)
        valid = not reasons
        self._store.append(BlockClosed(plan.block, valid, reasons, self._clock.realtime_ns()))
        self._observer.block_closed(plan.block, valid, reasons)
        progress = self._progress
        progress.valid += valid
        progress.void += not valid
        measured = any(agent.status == "sealed" for record in rounds for agent in record.agents)
        progress.failed_in_row = 0 if measured else progress.failed_in_row + 1
        if progress.failed_in_row >= HOPELESS:
            error = next((record.error for record in rounds if record.error), "no agent reported")
            raise ClusterError(f"{HOPELESS} blocks in a row measured nothing; the last one: {error}")
