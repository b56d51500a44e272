"""Where each phase put its targets, over the valid blocks, beside what chance alone would do."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from kabench.core.result import BlockRecord, PlacementAccuracy, RoundRecord


def placement_accuracy(
    phases: Sequence[str], blocks: Sequence[BlockRecord], rounds: Sequence[RoundRecord], replicas: int
) -> list[PlacementAccuracy]:
    """One entry a phase, in the order given; `placed` is 0 where no valid block has it.

    `replicas` is how many targets each round should have.

    The role of a target's node is the block's own record of it. Chance is the share of noisy nodes: where a policy that
    knows nothing would put a target, on average.
    """
    valid = {block.block: block for block in blocks if block.valid}
    return [
        _of_phase(
            phase, [(valid[r.block], r) for r in rounds if r.phase == phase and r.block in valid], replicas
        )
        for phase in phases
    ]


def _of_phase(
    phase: str, rounds: Sequence[tuple[BlockRecord, RoundRecord]], replicas: int
) -> PlacementAccuracy:
    roles: Counter[str] = Counter()
    by_block: list[float] = []
    chances: list[float] = []
    for block, record in sorted(rounds, key=lambda pair: pair[0].block):
        if not record.placements:
            continue
        here = Counter(block.roles.get(placement.node, placement.role) for placement in record.placements)
        roles += here
        by_block.append(here["noisy"] / len(record.placements))
        chances.append(len(block.noise_nodes) / len(block.roles) if block.roles else 0.0)
    placements = [placement for _, record in rounds for placement in record.placements]
    waits_ns = [placement.pending_ns for placement in placements]
    return PlacementAccuracy(
        phase=phase,
        placed=roles.total(),
        on_noisy=roles["noisy"],
        on_shared=roles["shared"],
        on_quiet=roles["quiet"],
        chance_noisy=sum(chances) / len(chances) if chances else 0.0,
        by_block=by_block,
        to_schedule_p50_ns=round(statistics.median(waits_ns)) if waits_ns else None,
        to_schedule_max_ns=max(waits_ns, default=None),
        unplaced=max(0, replicas * len(rounds) - roles.total()),
        decided_by=dict(sorted(Counter(placement.decided_by for placement in placements).items())),
    )
