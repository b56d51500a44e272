"""What an order asks for, in the engine's terms: streams of arrivals, and codecs."""

from __future__ import annotations

import functools

from kabench.core.schedule import Stream
from kabench.wire.messages import Prepare, RedisLoad, Target
from kabench_agent.aiohttp_client import HttpSession
from kabench_agent.asyncio_redis_client import RedisClient
from kabench_agent.closed import ClosedConnection
from kabench_agent.drivers import AsyncioTransport, Connection, Transport
from kabench_agent.library import (
    LibraryClosedConnection,
    LibraryCodec,
    LibraryConnection,
    LibraryTransport,
)
from kabench_agent.protocols.base import Codec
from kabench_agent.protocols.http1 import HttpCodec
from kabench_agent.protocols.resp import RespCodec

WIRE = "wire"


def stream_of(target: Target) -> Stream:
    """The arrivals that a target is to get from this agent."""
    load = target.load
    if isinstance(load, RedisLoad):
        weights = tuple(weight for _, weight in load.mix)
        return Stream(target.name, target.rate_per_s, weights, load.keys, load.key_distribution == "zipf")
    return Stream(target.name, target.rate_per_s, tuple(weight for _, weight in load.paths))


def codec_of(target: Target) -> Codec:
    """What speaks the target's protocol; raises ValueError where its load cannot be asked for."""
    load = target.load
    codec = RespCodec(load) if isinstance(load, RedisLoad) else HttpCodec(target.host, target.port, load)
    return codec if target.driver == WIRE else LibraryCodec(codec.missed)


def transport_of(target: Target, codec: Codec, patience_ns: int) -> Transport:
    """What makes a target's connections; raises ValueError where its driver cannot ask for its load."""
    load, driver = target.load, target.driver
    if driver == WIRE:
        return AsyncioTransport(patience_ns, target.tls, codec.opening)
    if driver == "asyncio-redis" and isinstance(load, RedisLoad):
        if target.tls:
            raise ValueError(f"{target.name}: asyncio-redis knows no TLS; use the wire driver")
        RedisClient(load)  # now, and not when a connection is made: what it cannot ask for is to be refused
        return LibraryTransport(patience_ns, functools.partial(RedisClient, load))
    if driver == "aiohttp" and not isinstance(load, RedisLoad):
        session = HttpSession(target)
        return LibraryTransport(patience_ns, session.client, session.close)
    raise ValueError(f"{target.name}: there is no driver {driver!r} for its kind")


def connections_of(target: Target) -> tuple[type[Connection], type[ClosedConnection]]:
    """What its connections are in an open loop, and in a closed one."""
    if target.driver == WIRE:
        return Connection, ClosedConnection
    return LibraryConnection, LibraryClosedConnection


def check(prepare: Prepare) -> None:
    """Raises ValueError on what would never end, or never start."""
    if min(prepare.timeout_ns, prepare.interval_ns, prepare.window_ns, prepare.max_in_flight) <= 0:
        raise ValueError("time-out, interval, window and most in flight must be positive")
    for target in prepare.targets:
        if min(target.connections, target.pipeline) < 1:
            raise ValueError(f"{target.name} needs at least one connection, and one request on it")
        if isinstance(target.load, RedisLoad) and target.load.keys < 1:
            raise ValueError(f"{target.name} needs at least one key")
