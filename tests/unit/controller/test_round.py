"""What agents are told, and what strangers used: pure parts of a round."""

from __future__ import annotations

import pytest

from kabench.backends.base import CpuUsage, Node, PlacedTarget, Round, standing_targets
from kabench.controller.crew import sharing
from kabench.controller.orders import prepare_orders
from kabench.controller.round import longest_s, strangers_share
from kabench.core.identity import Kind
from kabench.core.spec import NS_PER_S, Phase, Scenario
from kabench.wire.messages import HttpLoad, RedisLoad, Tls

SCENARIO = Scenario.model_validate(
    {
        "name": "s",
        "seed": 7,
        "agents": 3,
        "phases": [{"name": "a", "policy": "default"}, {"name": "b", "policy": "default"}],
        "targets": [
            {
                "name": "r",
                "kind": "redis",
                "replicas": 2,
                "redis": {"keys": 10, "value_bytes": 5, "mix": {"get": 1, "INCR": 1}},
            },
            {"name": "h", "kind": "http", "replicas": 2, "http": {"paths": {"/x": 1}}},
        ],
        "load": {"rate_per_s": 1200, "pipeline": 4, "timeout_ms": 250},
    }
)
PLACED = [
    PlacedTarget(f"{workload}-{index}", workload, kind, "node-1", "127.0.0.1", 1000 + index, "test")
    for workload, kind in (("r", Kind.REDIS), ("h", Kind.HTTP))
    for index in range(2)
]
AGENTS = ["node-1", "node-2", "node-3"]


def orders(phase: str = "a", block: int = 1, agents: list[str] = AGENTS):
    round_ = Round(f"{block:03d}-{phase}", block, Phase(name=phase, policy="default"), (), SCENARIO.seed)
    return prepare_orders(SCENARIO, "run", round_, PLACED, agents)


def test_the_rate_is_shared_over_all_agents_and_targets() -> None:
    rates = [target.rate_per_s for order in orders().values() for target in order.targets]
    assert len(rates) == 12
    assert sum(rates) == pytest.approx(1200)


def test_a_lost_agent_does_not_change_what_the_others_send() -> None:
    assert (
        orders(agents=AGENTS[:2])["node-1"].targets[0].rate_per_s == orders()["node-1"].targets[0].rate_per_s
    )


def test_every_redis_is_filled_once_and_nothing_else_is() -> None:
    filled = [target.name for order in orders().values() for target in order.targets if target.fill]
    assert sorted(filled) == ["r-0", "r-1"]


def test_arms_of_a_block_meet_the_same_arrivals_and_agents_and_blocks_differ() -> None:
    a, b, later = orders("a"), orders("b"), orders("a", block=2)
    assert {node: order.seed for node, order in a.items()} == {node: order.seed for node, order in b.items()}
    assert len({order.seed for order in [*a.values(), *later.values()]}) == 6


def test_the_load_is_what_the_scenario_says() -> None:
    order = orders()["node-2"]
    assert order.targets[0].load == RedisLoad(10, 5, (("get", 1.0), ("incr", 1.0)))
    assert order.targets[2].load == HttpLoad((("/x", 1.0),))
    assert (order.targets[0].pipeline, order.targets[2].pipeline) == (4, 1)  # HTTP/1.1 is not pipelined
    assert order.timeout_ns == 250_000_000


def test_how_it_is_driven_is_told_to_every_agent() -> None:
    tls = {"verify": False, "ca_file": "/ca.pem", "server_name": "cache"}
    scenario = Scenario.model_validate(
        {
            "name": "s",
            "agents": 2,
            "phases": [{"name": "load", "standing": "given"}],
            "targets": [
                {"name": "r", "kind": "redis", "replicas": 1, "address": "h:1", "tls": tls},
                {"name": "h", "kind": "http", "replicas": 1, "address": "h:2", "driver": "aiohttp"},
            ],
            "load": {"loop": "closed", "profile": [{"at": 0, "factor": 0.5}, {"at": 1, "factor": 2}]},
        }
    )
    round_ = Round("001-load", 1, scenario.phases[0], (), 1)
    placed = standing_targets(scenario, scenario.phases[0])
    for order in prepare_orders(scenario, "run", round_, placed, AGENTS[:2]).values():
        assert (order.loop, order.profile) == ("closed", ((0.0, 0.5), (1.0, 2.0)))
        assert [target.tls for target in order.targets] == [Tls(**tls), None]
        assert [target.driver for target in order.targets] == ["wire", "aiohttp"]


def test_strangers_are_all_that_is_not_ours_on_the_quiet_cpus() -> None:
    before = CpuUsage(0, {0: 0, 1: 1_000}, {0: 0, 1: 500})
    after = CpuUsage(10_000, {0: 9_000, 1: 6_000}, {0: 100, 1: 3_500})
    assert strangers_share(before, after, frozenset({1})) == {"1": 0.2}


def test_strangers_are_unknown_without_both_samples() -> None:
    usage = CpuUsage(5, {}, {})
    assert strangers_share(None, usage, frozenset({0})) is None
    assert strangers_share(usage, usage, frozenset({0})) is None


def test_own_time_read_later_than_all_time_is_not_a_negative_stranger() -> None:
    before, after = CpuUsage(0, {0: 0}, {0: 0}), CpuUsage(100, {0: 50}, {0: 60})
    assert strangers_share(before, after, frozenset({0})) == {"0": 0.0}


@pytest.mark.parametrize(("left_s", "longest"), [(5, 10.5), (0, 5.5), (-7, 5.5)])
def test_a_window_that_is_over_is_watched_until_its_seal_all_the_same(left_s: int, longest: float) -> None:
    assert longest_s(left_s * NS_PER_S, timeout_ms=500) == longest


def node(name: str, *cpus: int, boot_id: str = "m") -> Node:
    return Node(name, 1000, 1, frozenset(cpus), boot_id)


def test_nodes_are_grouped_by_the_cpus_they_share_directly_or_not() -> None:
    nodes = [node("a", 0, 1), node("b", 2), node("c", 1, 2), node("d", 3)]
    assert [[n.name for n in group] for group in sharing(nodes)] == [["a", "b", "c"], ["d"]]


def test_equal_cpu_numbers_of_different_machines_are_different_cpus() -> None:
    nodes = [node("a", 0, boot_id="m1"), node("b", 0, boot_id="m2")]
    assert len(sharing(nodes)) == 2


def test_a_busy_cpu_is_never_more_than_whole() -> None:
    before, after = CpuUsage(0, {0: 0}, {0: 0}), CpuUsage(100, {0: 110}, {0: 0})
    assert strangers_share(before, after, frozenset({0})) == {"0": 1.0}
