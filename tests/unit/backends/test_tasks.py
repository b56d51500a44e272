"""Waits side by side, and work that a cancellation does not cut short."""

from __future__ import annotations

import asyncio

import pytest

from kabench.backends.tasks import all_of, undisturbed


async def fails() -> int:
    raise KeyError("first")


async def test_results_come_in_order_and_the_first_failure_as_itself() -> None:
    async def number(value: int) -> int:
        return value

    assert await all_of({"a": number(1), "b": number(2)}) == [1, 2]
    with pytest.raises(KeyError, match="first"):
        await all_of({"a": number(1), "b": fails()})


async def test_a_cancellation_waits_for_the_work_and_is_raised_then() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), []

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.append("done")

    task = asyncio.create_task(undisturbed(work(), "work"))
    await begun.wait()
    for _ in range(2):  # a second Ctrl-C changes nothing either
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["done"]


async def test_undisturbed_work_returns_and_raises_as_it_would_alone() -> None:
    async def work() -> int:
        return 3

    assert await undisturbed(work(), "work") == 3
    with pytest.raises(KeyError):
        await undisturbed(fails(), "work")
