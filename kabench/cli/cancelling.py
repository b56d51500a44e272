"""Commands that leave something behind unless they clean up: signals cancel them, once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_cancellable(work: Coroutine[Any, Any, T], stopping: Callable[[], None] = lambda: None) -> T:
    """Run `work`; the first signal to end cancels it, and further ones change nothing, since it cleans up by then.

    Args:
        work: ends by itself, or when it is cancelled.
        stopping: called when the first signal comes.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    try:
        return asyncio.run(_cancelled_by_signals(work, stopping))
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


async def _cancelled_by_signals(work: Coroutine[Any, Any, T], stopping: Callable[[], None]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    told = False

    def stop() -> None:
        nonlocal told
        if not told:
            told = True
            stopping()
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and the like are respected
            loop.add_signal_handler(number, stop)
    return await work
