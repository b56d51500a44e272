"""Placement policies: scores by hand, and what a policy may and may not see."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench.core.contention import Contention
from kabench.core.placement import (
    MIB,
    Decision,
    NodeState,
    PodRequest,
    Resources,
    default_scores,
    place,
    pressure,
)
from kabench.core.roles import roles
from kabench.errors import ClusterError

WORKER = Resources(4000, 8192 * MIB)
NOTHING, SMALL = Resources(), Resources(100, 64 * MIB)


def nodes(count: int = 6, used: Resources = NOTHING) -> list[NodeState]:
    return [NodeState(f"node-{n}", WORKER, used, used) for n in range(1, count + 1)]


def pods(*counts: tuple[str, int], requests: Resources = SMALL) -> list[PodRequest]:
    return [PodRequest(f"{name}-{n}", name, requests) for name, count in counts for n in range(1, count + 1)]


def seen(delay_share: float, p50: float | None = 80.0, p99: float | None = 100.0) -> Contention:
    return Contention(100_000_000, round(1e6 * (1 - delay_share)), round(1e6 * delay_share), p50, p99)


def where(decisions: list[Decision]) -> dict[str, str]:
    return {decision.pod.name: decision.node for decision in decisions}


def test_scores_by_hand() -> None:
    half = NodeState("half", WORKER, Resources(2000, 1024 * MIB), Resources(2000, 1024 * MIB), {"echo": 1})
    empty = NodeState("empty", WORKER)
    pod = PodRequest("echo-2", "echo", Resources(400, 1024 * MIB))

    scores = default_scores(pod, [half, empty])

    # least: (4000-2400)/4000 = 40, (8192-2048)/8192 = 75 -> 115 // 2; balanced: |0.6-0.25|/2 = 0.175
    # spread: one replica weighs ln(2+2) = 1.386, plus maxSkew-1 = 2 -> 3; an empty node 2; 100*(3+2-3)//3 and 100
    assert scores["half"] == {"least_allocated": 57, "balanced": 82, "spread": 66, "total": 57 + 82 + 132}
    assert scores["empty"] == {"least_allocated": 88, "balanced": 98, "spread": 100, "total": 88 + 98 + 200}


def test_without_requests_pods_count_as_small_ones_in_least_allocated_alone() -> None:
    pod = PodRequest("a-1", "a", Resources())
    after = NodeState("n", WORKER).holding(pod)
    assert after.scored == Resources(100, 200 * MIB)
    assert after.requested == Resources()
    scores = default_scores(pod, [NodeState("n", WORKER)])["n"]
    assert scores["least_allocated"] == (97 + 97) // 2
    assert scores["balanced"] == 100


def test_a_node_filled_beyond_its_size_by_scored_requests_gets_nothing_for_it() -> None:
    full = NodeState("n", Resources(100, 100 * MIB), Resources(), Resources(100, 100 * MIB))
    assert default_scores(PodRequest("a-1", "a", Resources()), [full])["n"]["least_allocated"] == 0


def test_replicas_of_a_workload_spread_before_any_node_gets_a_second() -> None:
    decisions = place("default", pods(("a", 6), ("b", 6)), nodes(), {}, random.Random(1))
    for workload in ("a", "b"):
        assert len({d.node for d in decisions if d.pod.workload == workload}) == 6


def test_the_default_policy_avoids_requests() -> None:
    fleet = [
        *nodes(3),
        *(
            NodeState(f"busy-{n}", WORKER, Resources(1000, 256 * MIB), Resources(1000, 256 * MIB))
            for n in range(3)
        ),
    ]
    decisions = place("default", pods(("a", 3)), fleet, {}, random.Random(1))
    assert {d.node for d in decisions} == {"node-1", "node-2", "node-3"}


def test_equal_nodes_are_drawn_evenly() -> None:
    first = Counter(
        where(place("default", pods(("a", 1)), nodes(), {}, random.Random(seed)))["a-1"]
        for seed in range(1200)
    )
    assert set(first) == {f"node-{n}" for n in range(1, 7)}
    assert all(140 <= count <= 260 for count in first.values())  # 200 expected, standard deviation 13


def test_the_same_seed_places_the_same_way_and_another_does_not() -> None:
    def once(seed: int) -> dict[str, str]:
        return where(place("default", pods(("a", 4), ("b", 4)), nodes(), {}, random.Random(seed)))

    assert once(7) == once(7)
    assert len({tuple(once(seed).items()) for seed in range(20)}) > 10


@pytest.mark.parametrize("noisy", [("node-1", "node-2"), ("node-2", "node-3"), ("node-4", "node-6")])
def test_when_the_noise_moves_the_placement_follows(noisy: tuple[str, ...]) -> None:
    contention = {n.name: seen(0.75, 150, 900) if n.name in noisy else seen(0.02) for n in nodes()}
    decisions = place("contention-aware", pods(("a", 4), ("b", 4)), nodes(), contention, random.Random(3))
    assert {d.node for d in decisions} == {n.name for n in nodes()} - set(noisy)
    assert all(d.scores["pressure"] == 0 for d in decisions)


def test_the_default_policy_does_not_look_at_contention() -> None:
    contention = {n.name: seen(0.9 if n.name == "node-1" else 0.0) for n in nodes()}
    blind = place("default", pods(("a", 4)), nodes(), {}, random.Random(5))
    assert place("default", pods(("a", 4)), nodes(), contention, random.Random(5)) == blind


def test_a_little_contention_more_does_not_decide() -> None:
    contention = {n.name: seen(0.0 if n.name == "node-1" else 0.1, 80, 100) for n in nodes()}
    used = {
        where(place("contention-aware", pods(("a", 1)), nodes(), contention, random.Random(s)))["a-1"]
        for s in range(60)
    }
    assert used == {n.name for n in nodes()}


def test_the_next_best_nodes_are_taken_once_the_best_are_full() -> None:
    small = [NodeState(f"node-{n}", Resources(200, 8192 * MIB)) for n in (1, 2, 3)]
    contention = {"node-1": seen(0.0), "node-2": seen(0.45), "node-3": seen(0.95)}
    placed = where(place("contention-aware", pods(("a", 5)), small, contention, random.Random(1)))
    assert list(placed.values()) == ["node-1", "node-1", "node-2", "node-2", "node-3"]


def test_a_node_that_was_not_probed_comes_last() -> None:
    contention = {"node-1": seen(0.9)}
    placed = place("contention-aware", pods(("a", 2)), nodes(2), contention, random.Random(1))
    assert {d.node for d in placed} == {"node-1"}


def test_without_any_telemetry_the_default_scores_decide() -> None:
    assert (
        len({d.node for d in place("contention-aware", pods(("a", 6)), nodes(), {}, random.Random(1))}) == 6
    )


def test_pressure_by_hand() -> None:
    found = pressure({"best": seen(0.1, 100, 200), "worse": seen(0.5, 125, 800)})
    assert found["best"] == 0
    assert found["worse"] == pytest.approx(0.5 * 0.4 + 0.25 * 0.2 + 0.25 * 0.75)


def test_pressure_without_the_canary_rests_on_the_delay_alone() -> None:
    assert pressure({"a": seen(0.1, None, None), "b": seen(0.5, None, None)})["b"] == pytest.approx(0.4)
    assert pressure({}) == {}


def test_what_fits_nowhere_is_refused_with_figures() -> None:
    with pytest.raises(
        ClusterError, match=r"a-1 \(4500m CPU, 64 MiB\) fits on none of 2 nodes: .* of 4000m CPU"
    ):
        place("default", pods(("a", 1), requests=Resources(4500, 64 * MIB)), nodes(2), {}, random.Random(1))
    with pytest.raises(ClusterError, match="no node is a candidate"):
        place("default", pods(("a", 1)), [], {}, random.Random(1))


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    cpu=st.integers(0, 1500),
    seed=st.integers(0, 2**32),
    policy=st.sampled_from(["default", "contention-aware"]),
    shares=st.dictionaries(st.sampled_from(["node-1", "node-2", "node-3"]), st.floats(0, 0.99)),
)
def test_nothing_is_ever_overcommitted(counts, cpu, seed, policy, shares) -> None:  # type: ignore[no-untyped-def]
    wanted = pods(*((f"w{i}", count) for i, count in enumerate(counts)), requests=Resources(cpu, MIB))
    telemetry: Mapping[str, Contention] = {name: seen(share) for name, share in shares.items()}
    room = 3 * (4000 // cpu) if cpu else len(wanted)
    if len(wanted) > room:
        with pytest.raises(ClusterError):
            place(policy, wanted, nodes(3), telemetry, random.Random(seed))
        return
    decisions = place(policy, wanted, nodes(3), telemetry, random.Random(seed))
    assert [d.pod for d in decisions] == wanted
    assert all(count * cpu <= 4000 for count in Counter(d.node for d in decisions).values())


def slots(*cpus: int, boot: str = "one") -> dict[str, tuple[str, frozenset[int]]]:
    return {f"n{i}": (boot, frozenset([cpu])) for i, cpu in enumerate(cpus, start=1)}


def test_roles_on_two_cpus() -> None:
    found = roles(slots(0, 0, 0, 1, 1, 1), ["n1", "n2"])
    assert found == {
        "n1": "noisy",
        "n2": "noisy",
        "n3": "shared",
        "n4": "quiet",
        "n5": "quiet",
        "n6": "quiet",
    }


def test_roles_on_one_cpu_leave_nothing_quiet() -> None:
    assert set(roles(slots(0, 0, 0), ["n2"]).values()) == {"noisy", "shared"}


def test_the_same_cpu_number_on_another_machine_is_quiet() -> None:
    fleet = {"a": ("one", frozenset({0, 1})), "b": ("two", frozenset({0})), "c": ("one", frozenset({1, 2}))}
    assert roles(fleet, ["a"]) == {"a": "noisy", "b": "quiet", "c": "shared"}


def test_without_noise_all_are_quiet_and_unknown_nodes_are_refused() -> None:
    assert set(roles(slots(0, 0, 1), []).values()) == {"quiet"}
    with pytest.raises(ValueError, match="no node 'n9'"):
        roles(slots(0), ["n9"])
