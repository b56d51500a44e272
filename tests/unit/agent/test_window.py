"""A window's log: written in steps, and whole whenever that ends."""

from __future__ import annotations

import asyncio

import pytest
from agent_kit import ScriptedEngine, an_interval, an_order, http_target

from kabench_agent.window import Identity, Window

ORDER = an_order(http_target(1, "echo-0"), http_target(1, "echo-1"))
INTERVAL = an_interval(ORDER, 0, 0, [1_000_000, 2_000_000])
LINES = 2 * 3 + 1


class Log:
    """What was written, in memory."""

    def __init__(self) -> None:
        self.data = b""

    def append(self, data: bytes) -> None:
        self.data += data


def begun(log: Log) -> Window:
    window = Window(ORDER, ScriptedEngine)
    window.begin(log, Identity("node-1", "i", "b", "timerfd"), 0, 0)  # type: ignore[arg-type]
    log.data = b""
    return window


def whole() -> bytes:
    window = begun(Log())
    return window._writer.interval(INTERVAL)


@pytest.mark.parametrize("ended_at", [1, 2, LINES, LINES + 1, None])
async def test_a_line_at_a_time_and_all_of_them_wherever_it_is_cancelled(
    ended_at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kabench_agent.turns.STEP_NS", 0)
    log, pauses = Log(), 0
    window = begun(log)

    async def pause() -> None:
        nonlocal pauses
        pauses += 1
        if pauses == ended_at:
            raise asyncio.CancelledError

    monkeypatch.setattr(window, "_pause", pause)
    window._closed.put_nowait(INTERVAL)
    writing = asyncio.get_running_loop().create_task(window._write(log))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        if ended_at is None:
            await window._closed.join()
            assert pauses == 1 + LINES
            writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert log.data == whole()
