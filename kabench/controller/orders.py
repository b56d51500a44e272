"""What each agent is told before a window: its targets, its share of the load, its seed."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from kabench.backends.base import PlacedTarget, Round
from kabench.core.identity import Kind
from kabench.core.seeds import derive_seed
from kabench.core.spec import NS_PER_MS, NS_PER_S, Scenario, Target
from kabench.wire import messages as wire


def prepare_orders(
    scenario: Scenario, run: str, round_: Round, placed: Sequence[PlacedTarget], agents: Sequence[str]
) -> dict[str, wire.Prepare]:
    """What each agent is told, by node: every agent drives every target with its share of the rate.

    An agent's seed depends on the block and not on the phase, so that all arms of a block meet the same arrivals.
    Key spaces are filled once each, by the agents in turn.
    """
    load, timing = scenario.load, scenario.timing
    scenario_sha256 = scenario.fingerprint
    return {
        node: wire.Prepare(
            protocol=wire.PROTOCOL,
            run=run,
            scenario_sha256=scenario_sha256,
            window=round_.window,
            phase=round_.phase.name,
            block=round_.block,
            seed=derive_seed(scenario.seed, "agent", round_.block, node),
            arrivals=load.arrivals,
            targets=_targets(scenario, round_, placed, position, len(agents)),
            warm_up_ns=round(timing.warm_up_s * NS_PER_S),
            window_ns=round(timing.window_s * NS_PER_S),
            timeout_ns=round(load.timeout_ms * NS_PER_MS),
            max_in_flight=load.max_in_flight,
            null_rate_per_s=load.null_rate_per_s,
            ready_timeout_ns=round(timing.ready_timeout_s * NS_PER_S),
            loop=load.loop,
            profile=tuple((point.at, point.factor) for point in load.profile),
        )
        for position, node in enumerate(agents)
    }


def _targets(
    scenario: Scenario, round_: Round, placed: Sequence[PlacedTarget], position: int, agents: int
) -> tuple[wire.Target, ...]:
    """All targets, with the share of the agent at `position` of `agents`."""
    load = scenario.load
    share = (round_.phase.rate_per_s or load.rate_per_s) / (scenario.agents * len(placed))
    specs = {target.name: target for target in scenario.targets}
    return tuple(
        wire.Target(
            name=target.name,
            workload=target.workload,
            node=target.node,
            host=target.host,
            port=target.port,
            load=_load(specs[target.workload]),
            rate_per_s=share,
            connections=load.connections,
            pipeline=load.pipeline if target.kind is Kind.REDIS else 1,
            fill=_fills(specs[target.workload]) and index % agents == position,
            driver=specs[target.workload].driver,
            tls=_tls(specs[target.workload]),
        )
        for index, target in enumerate(placed)
    )


def _fills(target: Target) -> bool:
    return target.kind is Kind.REDIS and target.redis.fill


def _tls(target: Target) -> wire.Tls | None:
    return wire.Tls(**target.tls.model_dump()) if target.tls else None


def _load(target: Target) -> wire.RedisLoad | wire.HttpLoad:
    if target.kind is Kind.REDIS:
        redis = target.redis
        return wire.RedisLoad(
            keys=redis.keys,
            value_bytes=redis.value_bytes,
            mix=tuple(redis.mix.items()),
            key_distribution=redis.key_distribution,
            fill=redis.fill,
            user=redis.user or "",
            password=redis.password.get_secret_value() if redis.password else "",
            database=redis.database,
            resp=redis.resp,
        )
    http = target.http
    return wire.HttpLoad(
        paths=tuple(http.paths.items()),
        method=http.method or "",
        headers=tuple(http.headers.items()),
        body=base64.b64decode(http.body_base64 or "") or (http.body or "").encode(),
        body_bytes=http.body_bytes,
        keep_alive=http.keep_alive,
        expect_status=http.expect_status,
    )
