"""How agents that share a CPU keep out of each other's way while they drive targets.

All of them close their intervals at the same instants. Three agents that fold and write them at once, in one go, make one
another (and the targets there) late by milliseconds, once a second: more than all else on a quiet CPU. So each has a moment
of its own for it, and goes on in steps, of a tenth of a millisecond or little more, with pauses in between.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

Pause = Callable[[], Awaitable[None]]
"""Called wherever a chore could be interrupted."""

PAUSE_S = 0.002
"""After each step: many times what one takes."""

STEP_NS = 100_000
"""What is quicker goes on without a pause: a pause costs as much, for the timer and the way back."""

SPREAD = 0.8
"""Of an interval: how long after its end an agent begins with it, at most. The rest is for its steps."""


def moment_s(seed: int, interval_ns: int) -> float:
    """How long after an interval's end the agent of this seed folds it, in seconds."""
    return random.Random(seed).uniform(0, SPREAD) * interval_ns / 1e9


async def no_pause() -> None:
    """For who is in a hurry, or alone."""


class Steps:
    """A chore's pauses: a call lets others have their turn where the step before it has been long enough.

    Args:
        pause: lets others have their turn.
        now_ns: a clock; what it says first is when the first step begins.
    """

    def __init__(self, pause: Pause, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._pause = pause
        self._now_ns = now_ns
        self._since_ns = now_ns()

    async def __call__(self) -> None:
        """A step is done."""
        if self._now_ns() - self._since_ns >= STEP_NS:
            await self._pause()
            self._since_ns = self._now_ns()
