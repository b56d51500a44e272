"""Before a window: wait until every target answers, and fill the key spaces.

aiohttp's client asks HTTP targets, asyncio-redis asks and fills Redis. The latter has no maintainer: its protocol is used
on a transport of our own, without its pools and its reconnecting task, and its chatter goes nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from kabench.clock import Clock
from kabench.errors import AgentError
from kabench.wire.messages import HttpLoad, Prepare, RedisLoad, Target
from kabench_agent.keys import key_name

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import asyncio_redis
    from asyncio_redis.encoders import BytesEncoder

logging.getLogger("asyncio_redis").setLevel(logging.CRITICAL)

T = TypeVar("T")

SILENT = "it took the connection and did not answer"
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.25
ATTEMPT_S = 1.0
FILL_BATCH = 500
"""SETs in flight at once: enough to make the round trip cheap, few enough to keep memory flat."""


class _NotYetError(Exception):
    """The target is not ready, and may become so."""


@dataclass(frozen=True)
class _Attempts:
    """How long to go on asking."""

    clock: Clock
    deadline_ns: int
    longest_ns: int

    @property
    def left_s(self) -> float:
        return (self.deadline_ns - self.clock.monotonic_ns()) / 1e9


async def make_ready(order: Prepare, clock: Clock) -> dict[str, int]:
    """Wait for all targets side by side, then fill those this agent fills; returns the keys filled by target.

    Raises:
        AgentError: a target did not answer in time, or refused; the message names it and its last error.
    """
    attempts = _Attempts(clock, clock.monotonic_ns() + order.ready_timeout_ns, order.ready_timeout_ns)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ATTEMPT_S)) as session:
        await _for_each(order.targets, lambda target: _wait_until_ready(target, session, attempts))
    to_fill = [target for target in order.targets if target.fill and isinstance(target.load, RedisLoad)]
    counts = await _for_each(to_fill, lambda target: _fill(target, order.ready_timeout_ns / 1e9))
    return {target.name: count for target, count in zip(to_fill, counts, strict=True)}


async def _for_each(targets: Sequence[Target], call: Callable[[Target], Coroutine[None, None, T]]) -> list[T]:
    """Call for every target side by side; the first refusal ends the others."""
    refusal: AgentError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(target), name=f"prepare {target.name}") for target in targets]
    except* AgentError as refusals:
        refusal = _first(refusals)
    if refusal:
        raise refusal  # not above: until 3.11.4, Python wraps what is raised in an `except*` in a group of its own
    return [task.result() for task in tasks]


def _first(group: BaseExceptionGroup[AgentError]) -> AgentError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


async def _wait_until_ready(target: Target, session: aiohttp.ClientSession, attempts: _Attempts) -> None:
    """Ask until `target` answers, with growing pauses. An attempt that the deadline cuts short tells nothing new of it."""
    pause_s = FIRST_PAUSE_S
    last = ""
    while attempts.left_s > 0:
        try:
            async with asyncio.timeout(min(ATTEMPT_S, attempts.left_s)):
                await (
                    _ask_redis(target) if isinstance(target.load, RedisLoad) else _ask_http(target, session)
                )
            return
        except TimeoutError:
            if attempts.left_s > 0:
                last = SILENT
        except _NotYetError as error:
            last = str(error)
        await asyncio.sleep(min(pause_s, max(0.0, attempts.left_s)))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    raise AgentError(
        f"target {_place(target)} did not answer within {attempts.longest_ns / 1e9:g} s: {last or SILENT}"
    )


async def _ask_http(target: Target, session: aiohttp.ClientSession) -> None:
    """Any status below 500 will do: what is measured may well be a 404."""
    path = target.load.paths[0][0] if isinstance(target.load, HttpLoad) else "/"
    try:
        url = f"http://{_host(target)}:{target.port}{path}"
        async with session.get(url, allow_redirects=False) as response:
            if response.status >= 500:
                raise _NotYetError(f"HTTP status {response.status}")
    except (aiohttp.ClientError, OSError) as error:
        raise _NotYetError(_reason(error)) from error


async def _ask_redis(target: Target) -> None:
    """PING. A server that is still loading is not ready; one that refuses us never will be."""
    try:
        async with _redis(target) as redis:
            await redis.ping()
    except asyncio_redis.ErrorReply as error:
        if str(error).startswith(("LOADING", "BUSY", "MASTERDOWN")):
            raise _NotYetError(str(error)) from error
        raise _refused(target, error) from error
    except (asyncio_redis.Error, OSError) as error:
        raise _NotYetError(_reason(error)) from error


async def _fill(target: Target, patience_s: float) -> int:
    """Set every key of `target`; `patience_s` is how long a batch may take."""
    load = target.load
    assert isinstance(load, RedisLoad)
    value = b"x" * load.value_bytes
    try:
        async with _redis(target) as redis:
            for begin in range(0, load.keys, FILL_BATCH):
                batch = range(begin, min(begin + FILL_BATCH, load.keys))
                async with asyncio.timeout(patience_s):
                    answers = await asyncio.gather(
                        *(redis.set(key_name(index), value) for index in batch), return_exceptions=True
                    )
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
    except asyncio_redis.ErrorReply as error:
        raise _refused(target, error) from error
    except (asyncio_redis.Error, OSError) as error:  # TimeoutError is an OSError
        raise AgentError(
            f"target {_place(target)} was lost while its key space was filled: {_reason(error)}"
        ) from error
    return load.keys


@contextlib.asynccontextmanager
async def _redis(target: Target) -> AsyncIterator[Any]:
    """A connection that is closed for good when the block ends."""
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[None] = loop.create_future()

    def on_lost() -> None:
        if not lost.done():
            lost.set_result(None)

    def protocol() -> Any:
        return asyncio_redis.HiRedisProtocol(encoder=BytesEncoder(), connection_lost_callback=on_lost)

    transport, redis = await loop.create_connection(protocol, target.host, target.port)
    try:
        await asyncio.sleep(0)  # the protocol starts a task of its own, which is done after one step
        yield redis
    finally:
        transport.abort()
        await lost


def _refused(target: Target, error: Exception) -> AgentError:
    said = str(error).split(". ")[0].removesuffix(".")  # protected mode explains itself at length
    hint = ""
    if said.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
        hint = "; it must be open to the agents, without a password"
    elif said.startswith("DENIED"):
        hint = "; it must be open to the agents: start it with --protected-mode no"
    return AgentError(f"target {_place(target)} refuses: {said}{hint}")


def _place(target: Target) -> str:
    return f"{target.name} at {_host(target)}:{target.port}"


def _host(target: Target) -> str:
    return f"[{target.host}]" if ":" in target.host else target.host


def _reason(error: Exception) -> str:
    """A short cause: an OSError's own words without the address, which stands before it anyway."""
    os_error = getattr(error, "os_error", error)
    if isinstance(os_error, ConnectionRefusedError):
        return "connection refused"
    return str(error) or (
        "it did not answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    )
