"""Plans: a function of seed and block alone, with the noise spread evenly and as many quiet nodes as can be."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench.core.plan import (
    FEWEST_BLOCKS,
    QUICK_BUDGET_S,
    describe_plan,
    fit_duration,
    plan_blocks,
    planned_s,
    quick,
)
from kabench.core.roles import roles
from kabench.core.scenario import load_scenario, override
from kabench.core.spec import Scenario
from kabench.errors import SpecError
from kabench.scenarios import built_in

SEED = load_scenario(built_in("seed"), "seed.yaml")


def slots(cpus: int, nodes: int) -> dict[str, tuple[str, frozenset[int]]]:
    """Nodes of one machine over its CPUs, neighbours sharing where there are more nodes than CPUs."""
    return {
        f"node-{n + 1}": ("boot", frozenset(range(n * cpus // nodes, max(n * cpus // nodes + 1, (n + 1) * cpus // nodes))))
        for n in range(nodes)
    }  # fmt: skip


def noisy(count: int) -> Scenario:
    return SEED.model_copy(update={"noise": SEED.noise.model_copy(update={"nodes": count})})


def test_a_blocks_plan_does_not_depend_on_where_the_run_began() -> None:
    nodes = slots(2, 6)
    whole = plan_blocks(SEED, nodes, first=1, count=12)
    assert [plan.block for plan in whole] == list(range(1, 13))
    for plan in whole:
        assert plan_blocks(SEED, dict(reversed(nodes.items())), first=plan.block, count=1) == [plan]


def test_every_phase_stands_once_in_a_block_and_orders_differ() -> None:
    plans = plan_blocks(SEED, slots(2, 6), count=10)
    assert all(sorted(plan.order) == sorted(phase.name for phase in SEED.phases) for plan in plans)
    assert len({plan.order for plan in plans}) > 5
    assert len({plan.order[0] for plan in plans}) > 2


def test_another_seed_gives_another_plan() -> None:
    nodes = slots(2, 6)
    ours, other = plan_blocks(SEED, nodes, count=8), plan_blocks(override(SEED, seed=2), nodes, count=8)
    assert [p.noise_nodes for p in ours] != [p.noise_nodes for p in other]
    assert [p.order for p in ours] != [p.order for p in other]


def test_on_two_cpus_the_noise_alternates_between_them_and_leaves_half_the_nodes_quiet() -> None:
    nodes = slots(2, 6)
    cpus = [
        {cpu for name in plan.noise_nodes for cpu in nodes[name][1]}
        for plan in plan_blocks(SEED, nodes, count=8)
    ]
    assert all(len(used) == 1 for used in cpus)
    assert all(first != second for first, second in zip(cpus[::2], cpus[1::2], strict=True))
    for plan in plan_blocks(SEED, nodes, count=8):
        assert Counter(plan.roles.values()) == {"quiet": 3, "noisy": 2, "shared": 1}


@given(
    cpus=st.integers(1, 8),
    count=st.integers(2, 7),
    wanted=st.integers(0, 3),
    seed=st.integers(0, 2**32),
    blocks=st.integers(1, 8),
)
def test_no_other_choice_leaves_more_nodes_quiet(
    cpus: int, count: int, wanted: int, seed: int, blocks: int
) -> None:
    nodes, wanted = slots(cpus, count), min(wanted, count)
    best = max(
        sum(role == "quiet" for role in roles(nodes, chosen).values())
        for chosen in combinations(nodes, wanted)
    )
    for plan in plan_blocks(override(noisy(wanted), seed=seed, agents=count), nodes, count=blocks):
        assert len(plan.noise_nodes) == wanted
        assert sum(role == "quiet" for role in plan.roles.values()) == best


@pytest.mark.parametrize(
    ("cpus", "count", "wanted"), [(2, 6, 2), (6, 6, 2), (14, 6, 2), (3, 6, 1), (1, 6, 2), (4, 8, 2)]
)
@pytest.mark.parametrize("seed", range(5))
def test_every_node_is_noisy_equally_often(cpus: int, count: int, wanted: int, seed: int) -> None:
    scenario = override(noisy(wanted), seed=seed)
    used: Counter[str] = Counter()
    nodes = slots(cpus, count)
    for plan in plan_blocks(scenario, nodes, count=3 * count):
        used.update(plan.noise_nodes)
        if sum(used.values()) % count == 0 and plan.block % 6 == 0:
            assert {used[name] for name in nodes} == {sum(used.values()) // count}
        assert max(used.values()) - min(used[name] for name in nodes) <= 2
    assert {used[name] for name in nodes} == {3 * wanted}


def test_nodes_of_different_machines_share_nothing() -> None:
    nodes = {f"n{i}": (f"boot-{i}", frozenset({0})) for i in range(6)}
    for plan in plan_blocks(SEED, nodes, count=4):
        assert Counter(plan.roles.values()) == {"quiet": 4, "noisy": 2}


def test_without_noise_every_node_is_quiet() -> None:
    [plan] = plan_blocks(noisy(0), slots(2, 6))
    assert (plan.noise_nodes, set(plan.roles.values())) == ((), {"quiet"})


def test_more_noisy_nodes_than_nodes_are_refused() -> None:
    with pytest.raises(SpecError, match=r"noise\.nodes: 2 noisy nodes of 1; give at most 1"):
        plan_blocks(SEED, slots(2, 1))


def test_quick_takes_two_phases_in_eight_blocks_within_four_minutes() -> None:
    scenario = quick(SEED)
    assert [phase.name for phase in scenario.phases] == ["default", "contention-aware"]
    assert (scenario.blocks.planned, scenario.blocks.reserve) == (8, 12)
    assert scenario.timing.budget_s == QUICK_BUDGET_S
    assert planned_s(scenario, reserve=False) < QUICK_BUDGET_S < 240
    assert len(quick(SEED, phases=5).phases) == 5


@pytest.mark.parametrize("minutes", [3, 4, 6, 10, 15, 30, 60, 240])
@pytest.mark.parametrize("phases", [1, 2, 5])
def test_what_is_planned_fits_into_the_duration(minutes: int, phases: int) -> None:
    scenario = fit_duration(SEED.model_copy(update={"phases": SEED.phases[:phases]}), minutes * 60)
    assert planned_s(scenario, reserve=True) <= minutes * 60
    assert scenario.timing.budget_s == minutes * 60
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    if minutes >= 10:
        assert scenario.blocks.planned >= FEWEST_BLOCKS
        assert scenario.blocks.reserve == round(scenario.blocks.planned * 0.2)


def test_half_an_hour_has_twenty_blocks_of_five_phases_with_longer_windows() -> None:
    scenario = fit_duration(SEED, 1800)
    assert (scenario.blocks.planned, scenario.blocks.reserve) == (20, 4)
    assert scenario.timing.window_s == pytest.approx(10.4)


def test_a_shorter_window_comes_before_fewer_blocks() -> None:
    tight = fit_duration(quick(SEED), 180)
    assert tight.blocks.planned == 8
    assert 2 <= tight.timing.window_s < 5


def test_a_duration_without_room_for_a_block_is_refused() -> None:
    with pytest.raises(SpecError, match=r"5 phases need at least 40 s"):
        fit_duration(SEED, 39)
    assert fit_duration(SEED, 40).blocks.planned == 1


def test_the_plan_is_told_in_lines_that_fit_a_terminal() -> None:
    lines = describe_plan(quick(SEED))
    assert "plan      8 blocks × 2 phases × (1 s warm-up + 5 s window + 3.5 s) = 2 min 39 s" in lines
    assert "reserve   up to 12 more for void ones, as far as 3 min 50 s go" in lines
    assert "noise     stress-cache, stress-membw on 2 of 6 nodes" in lines
    assert max(map(len, lines)) <= 80
    assert "reserve   up to 4 more for void ones, 29 min 55 s with them" in describe_plan(
        fit_duration(SEED, 1800)
    )
    assert "noise     no noise" in describe_plan(noisy(0))
    assert not any(line.startswith("reserve") for line in describe_plan(fit_duration(SEED, 43)))
