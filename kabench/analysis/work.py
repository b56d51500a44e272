"""What the noise did: the price of a better p99, if it was bought by starving the batch work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kabench.core.result import BlockRecord, RoundRecord


def noise_work(valid: Sequence[BlockRecord], rounds: Sequence[RoundRecord]) -> dict[tuple[str, str], float]:
    """Operations per second of a stressor's pod, or of a worker where each is a process of its own, by (phase, stressor).

    Over the valid blocks; what is unknown is left out.
    """
    numbers = {block.block for block in valid}
    ops: defaultdict[tuple[str, str], float] = defaultdict(float)
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for record in rounds:
        for noise in record.noise if record.block in numbers else []:
            if noise.ops is not None and noise.seconds > 0:
                ops[record.phase, noise.stressor] += noise.ops
                seconds[record.phase, noise.stressor] += noise.seconds
    return {key: ops[key] / seconds[key] for key in sorted(ops)}
