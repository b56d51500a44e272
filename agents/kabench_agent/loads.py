"""What an order asks for, in the engine's terms: streams of arrivals, and codecs."""

from __future__ import annotations

from kabench.core.schedule import Stream
from kabench.wire.messages import Prepare, RedisLoad, Target
from kabench_agent.protocols.base import Codec
from kabench_agent.protocols.http1 import HttpCodec
from kabench_agent.protocols.resp import RespCodec


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
    if isinstance(load, RedisLoad):
        return RespCodec(load)
    return HttpCodec(target.host, target.port, load)


def check(prepare: Prepare) -> None:
    """Raises ValueError on what would never end, or never start."""
    if min(prepare.timeout_ns, prepare.interval_ns, prepare.window_ns, prepare.max_in_flight) <= 0:
        raise ValueError("time-out, interval, window and most in flight must be positive")
    for target in prepare.targets:
        if min(target.connections, target.pipeline) < 1:
            raise ValueError(f"{target.name} needs at least one connection, and one request on it")
        if isinstance(target.load, RedisLoad) and target.load.keys < 1:
            raise ValueError(f"{target.name} needs at least one key")
