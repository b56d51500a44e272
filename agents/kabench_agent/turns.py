"""How agents that share a CPU keep out of each other's way while they drive targets.

All of them close their intervals at the same instants. Three agents that fold and write them at once, in one go, make one
another (and the targets there) late by milliseconds, once a second: more than all else on a quiet CPU. So each has a moment
of its own for it, and goes on in steps, of some tenths of a millisecond, with pauses in between.
"""

from __future__ import annotations

import random

PAUSE_S = 0.002
"""After each step: many times what one takes."""

SPREAD = 0.8
"""Of an interval: how long after its end an agent begins with it, at most. The rest is for its steps."""


def moment_s(seed: int, interval_ns: int) -> float:
    """How long after an interval's end the agent of this seed folds it, in seconds."""
    return random.Random(seed).uniform(0, SPREAD) * interval_ns / 1e9
