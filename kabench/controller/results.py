"""`results.json`, made of the journal and the collected logs alone: the same way for a whole run and for one cut short."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kabench.analysis.comparison import compare
from kabench.core.journal import (
    BlockClosed,
    BlockStarted,
    Event,
    FleetReady,
    PhaseAdded,
    RoundEnded,
    RoundStarted,
    RunEnded,
    RunStarted,
)
from kabench.core.result import SCHEMA, BlockRecord, RoundRecord, RunResult, VoidReason
from kabench.errors import StoreError
from kabench.store import RunStore

INTERRUPTED = VoidReason("interrupted", "", "the run ended before the block was whole")


def build_result(store: RunStore) -> RunResult:
    """Everything a run found, from what its folder holds.

    Raises:
        StoreError: there is no journal, or it does not start as one.
    """
    journal = store.journal()
    if not journal or not isinstance(journal[0], RunStarted):
        raise StoreError(f"{store.folder}: no run's journal here")
    opening = journal[0]
    scenario = opening.scenario
    added = [event.phase for event in journal if isinstance(event, PhaseAdded)]
    if added:
        scenario = scenario | {"phases": added}
    ended = [event for event in journal if isinstance(event, RunEnded)]
    fleets = [event for event in journal if isinstance(event, FleetReady)]
    blocks, rounds = block_records(journal), round_records(journal)
    standing = all(phase.get("standing") for phase in scenario["phases"])  # read by seconds, others by blocks
    if standing:
        rounds += cut_short(journal, store)
    cells = store.read_cells()
    nodes = fleets[-1].nodes if fleets else []
    comparison = compare(scenario, opening.placement_note, blocks, rounds, cells, nodes)
    return RunResult(
        run=opening.run,
        schema=SCHEMA,
        kabench=opening.kabench,
        status=ended[-1].status if ended else "interrupted",
        started_realtime_ns=opening.realtime_ns,
        finished_realtime_ns=ended[-1].realtime_ns if ended else 0,
        backend=opening.backend,
        placement_note=opening.placement_note,
        scenario=scenario,
        scenario_sha256=opening.scenario_sha256,
        seed=opening.seed,
        environment=fleets[-1].environment if fleets else {},
        nodes=nodes,
        blocks=blocks,
        rounds=rounds,
        cells=cells,
        summary=store.summary(),
        comparison=comparison,
        seconds=store.read_seconds() if standing else [],
        journal=[msgspec.to_builtins(event) for event in journal if not isinstance(event, RoundEnded)],
    )


def block_records(journal: Sequence[Event]) -> list[BlockRecord]:
    """All blocks that were begun, in order; one that was never closed is void."""
    closed = {event.block: event for event in journal if isinstance(event, BlockClosed)}
    records = []
    for event in journal:
        if isinstance(event, BlockStarted):
            end = closed.get(event.block)
            records.append(
                BlockRecord(
                    block=event.block,
                    order=event.order,
                    noise_nodes=event.noise_nodes,
                    roles=event.roles,
                    reserve=event.reserve,
                    valid=end.valid if end else False,
                    void=end.void if end else [INTERRUPTED],
                )
            )
    return records


def cut_short(journal: Sequence[Event], store: RunStore) -> list[RoundRecord]:
    """The windows that began and whose rounds never ended, with what their agents had written."""
    ended = {record.window for record in round_records(journal)}
    roles = {event.block: event.roles for event in journal if isinstance(event, BlockStarted)}
    return [
        RoundRecord(
            event.window,
            event.block,
            event.phase,
            agents=list(store.agent_windows(event.window, roles[event.block], {})),
        )
        for event in journal
        if isinstance(event, RoundStarted) and event.window not in ended
    ]


def round_records(journal: Sequence[Event]) -> list[RoundRecord]:
    """All rounds that ended, in order."""
    return [event.record for event in journal if isinstance(event, RoundEnded)]
