"""asyncio-redis on one connection: its protocol, encoder and futures, without its pool and its reconnecting task.

The library has no maintainer and knows neither TLS nor RESP3; its chatter goes nowhere.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis  # noqa: F401 - asyncio-redis' quick protocol needs it, and does not ask for it
import msgspec

from kabench.core.commands import COMMANDS, ELEMENTS
from kabench.wire.messages import RedisLoad, Tls
from kabench_agent.drivers import AsyncioTransport
from kabench_agent.keys import FIELDS, counter_name, hash_name, key_name, list_name
from kabench_agent.protocols.base import Verdict
from kabench_agent.protocols.resp import RespCodec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import asyncio_redis
    from asyncio_redis.encoders import BytesEncoder

logging.getLogger("asyncio_redis").setLevel(logging.CRITICAL)

ErrorReply: type[Exception] = asyncio_redis.ErrorReply
LibraryError: type[Exception] = asyncio_redis.Error

PATIENCE_NS = 60_000_000_000
"""Whoever opens a client has a time-out of its own, which is shorter."""


async def opened(
    load: RedisLoad, tls: Tls | None, host: str, port: int, lost: Callable[[], None]
) -> tuple[Any, asyncio.Transport]:
    """asyncio-redis' protocol on a connection that has logged in and selected, as the load says, and its transport.

    Raises:
        OSError: there is no connection.
    """
    redis = asyncio_redis.HiRedisProtocol(encoder=BytesEncoder(), connection_lost_callback=lost)
    opening = RespCodec(msgspec.structs.replace(load, resp=2)).opening
    transport = await AsyncioTransport(PATIENCE_NS, tls, opening).reach(host, port, redis)
    try:
        await asyncio.sleep(0)  # the protocol starts a task of its own, which is done after one step
    except BaseException:
        transport.abort()
        raise
    return redis, transport


class RedisClient:
    """Commands that are known by name.

    Raises:
        ValueError: the load has what the library does not.
    """

    def __init__(self, load: RedisLoad) -> None:
        texts = [text for text, _ in load.mix]
        unknown = [text for text in texts if text not in COMMANDS]
        if unknown:
            raise ValueError(
                f"asyncio-redis is asked by method, and {unknown[0]!r} is none; use the wire driver"
            )
        if load.resp != 2:
            raise ValueError("asyncio-redis speaks RESP2 only; use the wire driver")
        self._load = load
        self._texts = texts
        self._value = b"x" * load.value_bytes
        self._calls: list[Callable[[int], Awaitable[Any]]] = []
        self._transport: asyncio.Transport | None = None

    async def open(self, host: str, port: int, lost: Callable[[], None]) -> None:
        """Connect, log in and select."""
        redis, self._transport = await opened(self._load, None, host, port, lost)
        keys, value = self._load.keys, self._value
        calls: dict[str, Callable[[int], Awaitable[Any]]] = {
            "get": lambda key: redis.get(key_name(key)),
            "set": lambda key: redis.set(key_name(key), value),
            "incr": lambda key: redis.incr(counter_name(key)),
            "lpush": lambda key: redis.lpush(list_name(key), [value]),
            "lrange": lambda key: redis.lrange_aslist(list_name(key), 0, ELEMENTS - 1),
            "hset": lambda key: redis.hset(hash_name(key), FIELDS[0], value),
            "hgetall": lambda key: redis.hgetall_asdict(hash_name(key)),
            "mget": lambda key: redis.mget_aslist(
                [key_name((key + step) % keys) for step in range(ELEMENTS)]
            ),
        }
        self._calls = [calls[text] for text in self._texts]

    async def call(self, op: int) -> Verdict:
        """One command."""
        choice, key = divmod(op, self._load.keys)
        try:
            reply = await self._calls[choice](key)
        except ErrorReply:
            return Verdict.REPLY
        except (asyncio_redis.ConnectionLostError, asyncio_redis.NotConnectedError):
            return Verdict.RESET
        except LibraryError:
            return Verdict.MALFORMED
        return Verdict.MISS if reply is None or (type(reply) is list and None in reply) else Verdict.OK

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
