"""Before a window: wait until every target answers, and fill the key spaces.

aiohttp's client asks HTTP targets, asyncio-redis asks and fills Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from kabench.clock import Clock
from kabench.core.commands import ELEMENTS
from kabench.errors import AgentError
from kabench.wire.messages import HttpLoad, Prepare, RedisLoad, Target
from kabench_agent.asyncio_redis_client import ErrorReply, LibraryError, opened
from kabench_agent.descriptors import make_room
from kabench_agent.drivers import OpeningRefusedError
from kabench_agent.keys import FIELDS, hash_name, key_name, list_name
from kabench_agent.tls import CERTIFICATE_REFUSED, context, reason, server_name

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
        AgentError: a target did not answer in time, or refused; the message names it and its last error. Or there are more
            connections than file descriptors.
    """
    make_room(sum(target.connections for target in order.targets))
    for target in order.targets:
        try:
            _ = target.tls and context(target.tls)
        except ValueError as error:
            raise AgentError(f"target {_place(target)}: {error}") from error
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
        patience_s = min(ATTEMPT_S, attempts.left_s)
        try:
            async with asyncio.timeout(patience_s):
                if isinstance(target.load, RedisLoad):
                    await _ask_redis(target)
                else:
                    await _ask_http(target, target.load, session)
            return
        except TimeoutError:
            if patience_s == ATTEMPT_S:  # timers may fire early, so what is left now does not tell
                last = SILENT
        except _NotYetError as error:
            last = str(error)
        await asyncio.sleep(min(pause_s, max(0.0, attempts.left_s)))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    raise AgentError(
        f"target {_place(target)} did not answer within {attempts.longest_ns / 1e9:g} s: {last or SILENT}"
    )


async def _ask_http(target: Target, load: HttpLoad, session: aiohttp.ClientSession) -> None:
    """Any status below 500 will do: what is measured may well be a 404, and what is expected may be anything."""
    try:
        scheme = "https" if target.tls else "http"
        url = f"{scheme}://{_host(target)}:{target.port}{load.paths[0][0]}"
        async with session.get(
            url,
            allow_redirects=False,
            headers=load.headers,
            ssl=context(target.tls) if target.tls else True,
            server_hostname=server_name(target.tls, target.host) if target.tls else None,
        ) as response:
            if response.status >= 500 and response.status not in load.expect_status:
                raise _NotYetError(f"HTTP status {response.status}")
    except (aiohttp.ClientError, OSError) as error:
        raise _not_reached(target, error) from error


async def _ask_redis(target: Target) -> None:
    """PING. A server that is still loading is not ready; one that refuses us never will be."""
    try:
        async with _redis(target) as redis:
            await redis.ping()
    except (ErrorReply, OpeningRefusedError) as error:
        if str(error).startswith(("LOADING", "BUSY", "MASTERDOWN")):
            raise _NotYetError(str(error)) from error
        raise _refused(target, error) from error
    except (LibraryError, OSError) as error:
        raise _not_reached(target, error) from error


def _not_reached(target: Target, error: Exception) -> Exception:
    """Whoever listens where nobody did is worth waiting for; a certificate that is refused stays so."""
    why = reason(error)
    if CERTIFICATE_REFUSED in why:
        return AgentError(f"target {_place(target)}: {why}")
    return _NotYetError(why)


async def _fill(target: Target, patience_s: float) -> int:
    """Write what `target` is asked for; `patience_s` is how long a batch may take. Returns the number of keys."""
    load = target.load
    assert isinstance(load, RedisLoad)
    count = 0
    try:
        async with _redis(target) as redis:
            writes = _writes(redis, load)
            while batch := list(itertools.islice(writes, FILL_BATCH)):
                async with asyncio.timeout(patience_s):
                    answers = await asyncio.gather(*(write() for write in batch), return_exceptions=True)
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
                count += len(batch)
    except (ErrorReply, OpeningRefusedError) as error:
        raise _refused(target, error) from error
    except (LibraryError, OSError) as error:  # TimeoutError is an OSError
        raise AgentError(
            f"target {_place(target)} was lost while its key space was filled: {reason(error)}"
        ) from error
    return count


def _writes(redis: Any, load: RedisLoad) -> Iterator[Callable[[], Coroutine[None, None, object]]]:
    """One for each key that the commands of the mix read."""
    value = b"x" * load.value_bytes
    commands = {text for text, weight in load.mix if weight}

    async def write_list(name: bytes) -> object:
        await redis.delete([name])  # or it would grow from run to run
        return await redis.rpush(name, [value] * ELEMENTS)

    if commands & {"get", "mget"}:
        yield from (functools.partial(redis.set, key_name(index), value) for index in range(load.keys))
    if "lrange" in commands:
        yield from (functools.partial(write_list, list_name(index)) for index in range(load.keys))
    if "hgetall" in commands:
        fields = dict.fromkeys(FIELDS, value)
        yield from (functools.partial(redis.hmset, hash_name(index), fields) for index in range(load.keys))


@contextlib.asynccontextmanager
async def _redis(target: Target) -> AsyncIterator[Any]:
    """A connection that is closed for good when the block ends."""
    assert isinstance(target.load, RedisLoad)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_lost() -> None:
        if not lost.done():
            lost.set_result(None)

    redis, transport = await opened(target.load, target.tls, target.host, target.port, on_lost)
    try:
        yield redis
    finally:
        transport.abort()
        await lost


def _refused(target: Target, error: Exception) -> AgentError:
    said = str(error).split(". ")[0].removesuffix(".")  # protected mode explains itself at length
    hint = ""
    if said.startswith("NOAUTH"):
        hint = "; give its password with the target"
    elif said.startswith("DENIED"):
        hint = "; it must be open to the agents: start it with --protected-mode no"
    return AgentError(f"target {_place(target)} refuses: {said}{hint}")


def _place(target: Target) -> str:
    return f"{target.name} at {_host(target)}:{target.port}"


def _host(target: Target) -> str:
    return f"[{target.host}]" if ":" in target.host else target.host
