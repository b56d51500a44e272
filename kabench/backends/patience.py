"""Trying again while something may be coming back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from kabench.clock import Clock

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""Between attempts; a pause is twice the last one."""


_STARTING = re.compile(r"RBAC: .*not found|not yet ready to handle")


def is_starting(status: int, message: str) -> bool:
    """Whether an API server's refusal only means that it has just started, and knows no roles yet."""
    return status in (401, 403) and _STARTING.search(message) is not None


async def comes_true(check: Callable[[], Awaitable[bool]], within_s: float, pause_s: float) -> bool:
    """Ask until the answer is True; False where it is not in time."""
    try:
        async with asyncio.timeout(within_s):
            while not await check():  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(pause_s)
    except TimeoutError:
        return False
    return True


class Patience:
    """How long to go on trying, counted from the first attempt that failed since the last answer.

    Args:
        clock: tells how long it has been.
        longest_ns: after so long, the error is raised.
    """

    def __init__(self, clock: Clock, longest_ns: int) -> None:
        self._clock, self._longest_ns = clock, longest_ns
        self.answered()

    def answered(self) -> None:
        """All is well again."""
        self._failing_since_ns: int | None = None
        self._pause_s = FIRST_PAUSE_S

    async def pause(self, error: Exception) -> None:
        """Wait before the next attempt; raises `error` where no patience is left."""
        now_ns = self._clock.monotonic_ns()
        if self._failing_since_ns is None:
            self._failing_since_ns = now_ns
        if now_ns - self._failing_since_ns >= self._longest_ns:
            raise error
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
