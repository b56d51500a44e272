"""The run's answer: contrasts between phases, with intervals, and as much of a verdict as the run's design allows.

The replicate is a block. Per valid block, phase and kind of target, the responses seen by agents on quiet nodes are merged,
and their p99 taken; a contrast is the blocks' log-ratios. Service times are treated in the same way, and only what both
show is claimed. What may be *said* of a contrast is decided in `analysis.verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from kabench.analysis import verdicts
from kabench.analysis.accuracy import placement_accuracy
from kabench.analysis.inference import SignFlip, blocks_needed, holm, student_interval
from kabench.analysis.pooling import Group, agents_p99, block_p99_ns, grouped, kinds_of, outcomes, quiet_cells
from kabench.core.identity import Metric
from kabench.core.result import (
    BlockPoint,
    BlockRecord,
    CellRecord,
    Comparison,
    Contrast,
    KindComparison,
    NodeRecord,
    RoundRecord,
)
from kabench.core.spec import WAYS


def compare(
    scenario: Mapping[str, Any],
    placement_note: str,
    blocks: Sequence[BlockRecord],
    rounds: Sequence[RoundRecord],
    cells: Sequence[CellRecord],
    nodes: Sequence[NodeRecord],
) -> Comparison:
    """Compare the scenario's phases over the valid blocks.

    Args:
        scenario: as the run's first journal line has it (`Scenario.model_dump(mode="json")`).
        placement_note: what the backend says of its placements ("simulated placement"), or "".
        blocks: all blocks, valid and void.
        rounds: all rounds.
        cells: all cells.
        nodes: all nodes.

    Raises:
        LogError: a cell's histogram is corrupt.
    """
    phases = [str(phase["name"]) for phase in scenario["phases"]]
    valid = [block for block in blocks if block.valid]
    contrasts = _Contrasts(blocks, cells).of(scenario)
    accuracy = placement_accuracy(phases, blocks, rounds, sum(t["replicas"] for t in scenario["targets"]))
    run = verdicts.RunFacts(scenario, placement_note, blocks, rounds, contrasts, accuracy, nodes)
    found = verdicts.verdicts(run)
    return Comparison(
        contrasts=contrasts,
        verdicts=found,
        accuracy=accuracy,
        agents_p99=agents_p99(phases, blocks, cells),
        headline=verdicts.headline(run, found),
        notes=verdicts.notes(run),
        valid_blocks=len(valid),
        void_blocks=len(blocks) - len(valid),
    )


def contrast_pairs(scenario: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(role, A, B) of every contrast that the phases allow.

    "effect" is the first phase against the second, unless both are placed in the same way; "oracle" the arm pinned to noisy
    nodes against the one pinned to quiet nodes; "a/a" the first two phases that are placed in the same way. Phases that are
    standing may differ in their rates, and are not compared.
    """
    if any(phase.get("standing") for phase in scenario["phases"]):
        return []
    ways = {str(phase["name"]): way_of(phase) for phase in scenario["phases"]}
    names = list(ways)
    pairs = []
    if len(names) > 1 and ways[names[0]] != ways[names[1]]:
        pairs.append(("effect", names[0], names[1]))
    noisy = [name for name in names if ways[name] == "pin:noisy"]
    quiet = [name for name in names if ways[name] == "pin:quiet"]
    if noisy and quiet:
        pairs.append(("oracle", noisy[0], quiet[0]))
    same = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if ways[a] == ways[b]]
    if same:
        pairs.append(("a/a", *same[0]))
    return pairs


def way_of(phase: Mapping[str, Any]) -> str:
    """`policy:default`, `scheduler:mine`, `pin:quiet`: as `core.spec.Phase.way`, from the plain form."""
    return next(f"{how}:{phase[how]}" for how in WAYS if phase.get(how) is not None)


class _Contrasts:
    """What all contrasts of a run are made of; every histogram is decoded once."""

    def __init__(self, blocks: Sequence[BlockRecord], cells: Sequence[CellRecord]) -> None:
        self._valid = {block.block for block in blocks if block.valid}
        self._counted = [record for record in cells if record.cell.block in self._valid]
        self._kinds = kinds_of(self._counted)
        quiet = grouped(quiet_cells(blocks, self._counted))
        self._any_quiet = bool(quiet)
        self._response = block_p99_ns(quiet, Metric.RESPONSE)
        self._service = block_p99_ns(quiet, Metric.SERVICE)

    def of(self, scenario: Mapping[str, Any]) -> list[Contrast]:
        return [
            Contrast(role, a, b, _with_holm([self._kind(kind, a, b) for kind in self._kinds]))
            for role, a, b in contrast_pairs(scenario)
        ]

    def _kind(self, kind: str, a: str, b: str) -> KindComparison:
        points = self._points(self._response, kind, a, b)
        service = self._points(self._service, kind, a, b)
        base = KindComparison(
            kind=kind,
            blocks=points,
            a_error_share=self._error_share(a, kind),
            b_error_share=self._error_share(b, kind),
            withheld=self._withheld(len(points)),
        )
        if not points:
            return base
        ratio, interval, p = _infer(points)
        t = student_interval([point.log_ratio for point in points])
        service_ratio, service_interval, _ = _infer(service) if service else (None, None, None)
        return replace(
            base,
            ratio=ratio,
            low=interval[0] if interval else None,
            high=interval[1] if interval else None,
            t_low=math.exp(t[0]) if t else None,
            t_high=math.exp(t[1]) if t else None,
            p=p,
            service_ratio=service_ratio,
            service_low=service_interval[0] if service_interval else None,
            service_high=service_interval[1] if service_interval else None,
        )

    def _points(self, p99: Mapping[Group, int | None], kind: str, a: str, b: str) -> list[BlockPoint]:
        points = []
        for block in sorted(self._valid):
            a_ns, b_ns = p99.get(Group(a, block, kind)), p99.get(Group(b, block, kind))
            if a_ns and b_ns:
                points.append(BlockPoint(block, a_ns, b_ns, math.log(b_ns / a_ns)))
        return points

    def _error_share(self, phase: str, kind: str) -> float:
        counts = outcomes(self._counted, phase, kind)
        return counts.error / counts.sent if counts.sent else 0.0

    def _withheld(self, points: int) -> str:
        """Why nothing can be said of a kind with so many points; "" where something can."""
        if not self._any_quiet:
            return "no agent was on a quiet node"
        needed = blocks_needed(len(self._kinds))
        if points >= needed:
            return ""
        short = len(self._valid) - points
        why = f"; {short} more have too few samples for a p99" if short else ""
        return f"too few blocks to compare: {points} of {needed}{why}"


def _infer(points: Sequence[BlockPoint]) -> tuple[float, tuple[float, float] | None, float]:
    """Ratio B over A, its 95% interval (None below six blocks), and p."""
    logs = [point.log_ratio for point in points]
    test = SignFlip(logs)
    interval = test.interval()
    ratio = math.exp(sum(logs) / len(logs))
    return ratio, (math.exp(interval[0]), math.exp(interval[1])) if interval else None, test.p_value()


def _with_holm(kinds: Sequence[KindComparison]) -> list[KindComparison]:
    tested = [kind.p for kind in kinds if kind.p is not None]
    adjusted = iter(holm(tested))
    return [replace(kind, p_holm=next(adjusted)) if kind.p is not None else kind for kind in kinds]
