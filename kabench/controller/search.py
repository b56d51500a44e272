"""A run whose phases are made as it goes: windows at rates that a search chooses, each a block and a phase of its own."""

from __future__ import annotations

from collections.abc import Callable

from kabench.analysis.rate_search import Promise, RateSearch, judged
from kabench.backends.base import Backend, Fleet
from kabench.clock import Clock, SystemClock
from kabench.controller.observer import Observer
from kabench.controller.round import RoundRunner
from kabench.controller.run import Session
from kabench.core.journal import PhaseAdded
from kabench.core.plan import plan_blocks
from kabench.core.result import RoundRecord, RunResult, Tried
from kabench.core.spec import Phase, Scenario
from kabench.store import RunStore


async def find_rate(
    scenario: Scenario,
    promise: Promise,
    backend: Backend,
    store: RunStore,
    observer: Observer,
    tell: Callable[[Tried], None],
    clock: Clock | None = None,
) -> RunResult:
    """Search the highest rate at which `promise` holds, from the scenario's own rate on; every try is kept in `store`.

    Args:
        scenario: with targets that stand; its first phase says how they are driven.
        promise: what must hold.
        backend: where agents run.
        store: the run's folder.
        observer: watches the windows.
        tell: called with each try as it is judged.
        clock: the controller's.

    Raises:
        SpecError, ClusterError, StoreError: as a run does.
    """
    session = _Search(scenario, promise, backend, store, observer, clock or SystemClock(), tell)
    return await session.run(resume=False)


class _Search(Session):
    """A session that makes up its blocks from what they show."""

    def __init__(
        self,
        scenario: Scenario,
        promise: Promise,
        backend: Backend,
        store: RunStore,
        observer: Observer,
        clock: Clock,
        tell: Callable[[Tried], None],
    ) -> None:
        super().__init__(scenario, backend, store, observer, clock)
        self._promise, self._tell = promise, tell

    async def _blocks(self, fleet: Fleet) -> None:
        base = self._scenario
        # logs bear the fingerprint of the scenario that the runner has: one for all of the run
        runner = RoundRunner(base, fleet, self._crew, self._store, self._observer, self._clock)
        nodes = {node.name: (node.boot_id, node.cpus) for node in self._crew.nodes}
        search = RateSearch(base.load.rate_per_s)
        block = 0
        while (rate := search.next_rate()) is not None:
            block += 1
            phase = Phase(name=f"try-{block:02d}", standing="given", rate_per_s=rate)
            self._scenario = base.model_copy(update={"phases": (phase,)})
            self._store.append(PhaseAdded(phase.model_dump(mode="json")))
            [plan] = plan_blocks(self._scenario, nodes, first=block)
            [record] = await self._block(plan, fleet, runner)
            tried = self._judged(record, rate)
            self._store.append(tried)
            self._tell(tried)
            if tried.outcome == "lost":
                return  # the target or an agent is gone: what other rates would show is not to be had
            search.record(rate, holds=tried.outcome == "holds")

    def _judged(self, record: RoundRecord, rate_per_s: float) -> Tried:
        missing = [agent.agent for agent in record.agents if agent.status != "sealed"]
        error = record.error or (f"{missing[0]} did not report" if missing else "")
        return judged(
            self._promise,
            record.phase,
            rate_per_s,
            self._scenario.timing.window_s,
            self._store.window_cells(record.window),
            record.agents,
            error,
        )
