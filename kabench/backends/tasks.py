"""Several waits side by side as one, and work that a cancellation does not cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


async def all_of(calls: Mapping[str, Coroutine[Any, Any, T]]) -> list[T]:
    """Run named coroutines together; results in their order. The first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call, name=name) for name, call in calls.items()]
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return [task.result() for task in tasks]


async def undisturbed(call: Coroutine[Any, Any, T], name: str) -> T:
    """Run `call` to its end, also when we are cancelled meanwhile: the cancellation is raised afterwards."""
    task = asyncio.create_task(call, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # looked at, so that it is not reported as never retrieved
        raise cancelled
    return task.result()


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = failures.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
