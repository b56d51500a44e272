"""What stands beside a p99: each agent's own, what targets waited for a node, and what found none."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from msgspec.structs import replace

from kabench.analysis.accuracy import placement_accuracy
from kabench.analysis.comparison import compare
from kabench.analysis.pooling import agents_p99
from kabench.core.histogram import Histogram
from kabench.core.identity import Cell, Kind, Outcomes
from kabench.core.result import AgentsP99, BlockRecord, CellRecord, Placement, RoundRecord, VoidReason

ROLES = {"node-1": "quiet", "node-2": "quiet", "node-3": "noisy"}


def block(number: int = 1, **changes: Any) -> BlockRecord:
    return BlockRecord(number, ["a"], ["node-3"], ROLES, **{"valid": True, **changes})


def cell(agent: str, values_ns: np.ndarray[Any, np.dtype[np.int64]], number: int = 1) -> CellRecord:
    histogram = Histogram()
    histogram.record_many(values_ns)
    identity = Cell("a", number, agent, "redis-0", "node-1", "redis", Kind.REDIS)
    return CellRecord(identity, Outcomes(), {"response": histogram.encode()})


STEADY = np.full(20_000, 1_000_000)
ODD = np.concatenate([np.full(19_000, 1_000_000), np.full(1_000, 50_000_000)])


def test_one_odd_client_is_seen_beside_the_pooled_p99_that_it_owns() -> None:
    [found] = agents_p99(["a"], [block()], [cell("node-1", STEADY), cell("node-2", ODD)])
    assert (found.phase, found.kind) == ("a", "redis")
    assert found.pooled_ns is not None
    assert found.pooled_ns > 49_000_000
    assert {agent: (ns or 0) > 49_000_000 for agent, ns in found.by_agent.items()} == {
        "node-1": False,
        "node-2": True,
    }


def test_agents_beside_noise_and_void_blocks_are_left_out() -> None:
    blocks = [block(), block(2, valid=False, void=[VoidReason("lag", "a", "late")])]
    cells = [cell("node-1", STEADY), cell("node-3", ODD), cell("node-2", ODD, 2)]
    [found] = agents_p99(["a"], blocks, cells)
    assert list(found.by_agent) == ["node-1"]


def test_an_agents_own_p99_with_too_few_samples_is_withheld() -> None:
    [found] = agents_p99(["a"], [block()], [cell("node-1", STEADY), cell("node-2", ODD[-1_500:])])
    assert found.by_agent["node-1"] is not None
    assert found.by_agent["node-2"] is None


def placed(*waits_ms: float) -> RoundRecord:
    placements = [
        Placement(f"t-{n}", "t", "redis", "node-1", "quiet", "x", pending_ns=round(ms * 1e6))
        for n, ms in enumerate(waits_ms)
    ]
    return RoundRecord("001-a", 1, "a", placements)


def test_the_time_to_schedule_and_what_found_no_node() -> None:
    [found] = placement_accuracy(["a"], [block()], [placed(1, 2, 9)], replicas=4)
    assert (found.placed, found.unplaced) == (3, 1)
    assert (found.to_schedule_p50_ns, found.to_schedule_max_ns) == (2_000_000, 9_000_000)


def test_a_phase_that_was_not_measured_has_no_time_to_schedule() -> None:
    [found] = placement_accuracy(["a"], [block(valid=False)], [placed(1)], replicas=1)
    assert (found.to_schedule_p50_ns, found.to_schedule_max_ns, found.unplaced) == (None, None, 0)


def test_the_notes_tell_the_price_of_each_phase(synthetic: ModuleType) -> None:
    run = synthetic.build(synthetic.Recipe(samples=150))
    rounds = [
        replace(
            record,
            placements=[
                replace(p, pending_ns=3_000_000 if record.phase == "default" else 40_000_000)
                for p in record.placements[record.phase != "default" :]  # the other phase leaves one pending
            ],
        )
        for record in run.rounds
    ]
    notes = compare(run.scenario, run.placement_note, run.blocks, rounds, run.cells, run.nodes).notes
    [note] = [note for note in notes if note.startswith("Median time to schedule")]
    assert "default 3 ms (at most 3)" in note
    assert "contention-aware 40 ms (at most 40)" in note
    assert note.endswith("Targets left pending: contention-aware 8.")


def test_a_comparison_has_each_agents_own_p99(synthetic: ModuleType) -> None:
    found = synthetic.build(synthetic.Recipe(samples=400)).comparison.agents_p99
    assert [(one.phase, one.kind) for one in found] == [
        (phase, kind) for phase in ("default", "contention-aware") for kind in ("redis", "http")
    ]
    assert all(
        isinstance(one, AgentsP99) and set(one.by_agent) == {"node-4", "node-5", "node-6"} for one in found
    )
