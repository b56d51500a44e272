"""What will be done, before it is done: orders, noisy nodes, and how much fits into a given time.

A block's plan is a function of the scenario, the nodes and the block's number alone, so that a resumed run goes on as
the first one would have.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kabench.core.roles import roles
from kabench.core.seeds import derive_seed
from kabench.core.spec import Blocks, Scenario
from kabench.errors import SpecError

Nodes = Mapping[str, tuple[str, frozenset[int]]]
"""name -> (boot id, CPUs that its agent may run on)."""


@dataclass(frozen=True)
class Costs:
    """What a backend needs beside the measuring itself, in seconds.

    Attributes:
        round_s: beside a round's warm-up and window: noise, probes, placement, start, drain, collection. With stress-ng
            on two CPUs; with the built-in stressor, which stays from round to round, it is 2 s.
        start_s: nodes and agents up at the start, results and charts at the end.
    """

    round_s: float = 3.5
    start_s: float = 7.0


LOCAL = Costs()

QUICK_BLOCKS = Blocks(planned=8, reserve=12)
"""With two kinds and Holm, an exact sign-flip test needs seven valid blocks. Of reserve blocks as many as four minutes hold
at most: on a shared machine, every second block may be void, and those end early."""
QUICK_WINDOW_S = 5.0
QUICK_WARM_UP_S = 1.0
QUICK_BUDGET_S = 230.0
"""Counted from the session's first step on; the charts come after it. With 235 s a run took four minutes and a second."""

FEWEST_BLOCKS = 8
MOST_BLOCKS = 20
"""More blocks than these make the windows longer instead: an exact test of 2²⁰ sign flips is enough for any answer."""
SHORTEST_WINDOW_S = 2.0
"""At the seed benchmark's rate, some 24 requests of each kind beyond the p99 on the quiet nodes' agents."""
RESERVE_PER_PLANNED = 0.2


@dataclass(frozen=True)
class BlockPlan:
    """Every phase once, in this order, with the noise on these nodes; `roles` by node: noisy, shared or quiet."""

    block: int
    order: tuple[str, ...]
    noise_nodes: tuple[str, ...]
    roles: Mapping[str, str]


def plan_blocks(scenario: Scenario, nodes: Nodes, first: int = 1, count: int = 1) -> list[BlockPlan]:
    """The plans of the blocks `first` … `first + count - 1`.

    Raises:
        SpecError: more noisy nodes are wanted than there are nodes.
    """
    wanted = scenario.noise.nodes
    if wanted > len(nodes):
        raise SpecError(f"noise.nodes: {wanted} noisy nodes of {len(nodes)}; give at most {len(nodes)}")
    plans = []
    for block, noisy in zip(range(1, first + count), _noise(scenario.seed, nodes, wanted), strict=False):
        if block < first:
            continue  # drawn all the same: who was noisy before decides who is next
        order = [phase.name for phase in scenario.phases]
        random.Random(derive_seed(scenario.seed, "order", block)).shuffle(order)
        plans.append(BlockPlan(block, tuple(order), noisy, roles(nodes, noisy)))
    return plans


def _noise(seed: int, nodes: Nodes, wanted: int) -> Iterator[tuple[str, ...]]:
    """The noisy nodes of block 1, of block 2, and so on without end.

    Nodes that share CPUs are filled up together, which leaves the most nodes quiet; groups, and nodes within a group,
    that were noisy least often come first, and equals in an order drawn for the block.
    """
    used = dict.fromkeys(sorted(nodes), 0)
    groups = _sharing(nodes)
    block = 0
    while True:
        block += 1
        draw = random.Random(derive_seed(seed, "noise", block))
        shuffled = [draw.sample(group, len(group)) for group in draw.sample(groups, len(groups))]
        shuffled.sort(key=lambda group: sum(used[name] for name in group) / len(group))
        chosen = [shuffled[index] for index in _cover([len(group) for group in shuffled], wanted)]
        least_used = sorted((name for group in chosen for name in group), key=used.__getitem__)
        noisy = tuple(sorted(least_used[:wanted]))
        for name in noisy:
            used[name] += 1
        yield noisy


def _sharing(nodes: Nodes) -> list[list[str]]:
    """The nodes' names in groups that share CPUs of one machine, directly or through others; sorted."""
    groups: list[tuple[set[str], set[tuple[str, int]]]] = []
    for name, (boot_id, cpus) in nodes.items():
        names, owned = {name}, {(boot_id, cpu) for cpu in cpus}
        apart = []
        for group in groups:
            if group[1] & owned:
                names, owned = names | group[0], owned | group[1]
            else:
                apart.append(group)
        groups = [*apart, (names, owned)]
    return sorted(sorted(names) for names, _ in groups)


def _cover(sizes: Sequence[int], wanted: int) -> tuple[int, ...]:
    """Indices whose sizes add up to the least sum that is no less than `wanted`; early ones are preferred."""
    reached: dict[int, tuple[int, ...]] = {0: ()}
    for index, size in enumerate(sizes):
        for total, chosen in list(reached.items()):
            if total < wanted:
                reached.setdefault(total + size, (*chosen, index))
    return reached[min(total for total in reached if total >= wanted)]


def quick(scenario: Scenario, *, phases: int = 2, costs: Costs = LOCAL) -> Scenario:
    """The first `phases`, in as many blocks as a comparison needs; two local ones are done within four minutes."""
    timing = scenario.timing.model_copy(update={"window_s": QUICK_WINDOW_S, "warm_up_s": QUICK_WARM_UP_S})
    update = {"phases": scenario.phases[:phases], "blocks": QUICK_BLOCKS, "timing": timing}
    short = scenario.model_copy(update=update)
    whole_s = planned_s(short, reserve=False, costs=costs)
    budget_s = QUICK_BUDGET_S if whole_s <= QUICK_BUDGET_S else planned_s(short, reserve=True, costs=costs)
    return short.model_copy(update={"timing": timing.model_copy(update={"budget_s": budget_s})})


def round_s(scenario: Scenario, costs: Costs = LOCAL) -> float:
    """How long a round takes, in seconds."""
    return scenario.timing.warm_up_s + scenario.timing.window_s + costs.round_s


def planned_s(scenario: Scenario, *, reserve: bool, costs: Costs = LOCAL) -> float:
    """How long the run takes, in seconds, without or with all `reserve` blocks."""
    blocks = scenario.blocks.planned + (scenario.blocks.reserve if reserve else 0)
    return costs.start_s + blocks * len(scenario.phases) * round_s(scenario, costs)


def fit_duration(scenario: Scenario, duration_s: float, costs: Costs = LOCAL) -> Scenario:
    """Choose blocks, reserve ones among them, and the window so that all fit into `duration_s` seconds.

    The scenario's window is kept where it allows 8 to 20 blocks; it is made shorter to reach 8, and longer where there
    is time for more than 20.

    Raises:
        SpecError: not even one block fits.
    """
    left_s = duration_s - costs.start_s
    arms = len(scenario.phases)
    beside_s = scenario.timing.warm_up_s + costs.round_s
    total = int(left_s / (arms * round_s(scenario, costs)))
    fewest, most = _with_reserve(FEWEST_BLOCKS), _with_reserve(MOST_BLOCKS)
    window_s = scenario.timing.window_s
    if not fewest <= total <= most:
        total = fewest if total < fewest else most
        window_s = left_s / (total * arms) - beside_s
    if window_s < SHORTEST_WINDOW_S:
        window_s = min(SHORTEST_WINDOW_S, scenario.timing.window_s)
        total = int(left_s / (arms * (beside_s + window_s)))
    if total < 1:
        least_s = costs.start_s + arms * (beside_s + window_s)
        raise SpecError(
            f"--duration: {arms} phases need at least {least_s:.0f} s for one block; give more, or --quick"
        )
    planned = max(count for count in range(1, total + 1) if _with_reserve(count) <= total)
    timing = scenario.timing.model_copy(
        update={"window_s": min(600.0, int(window_s * 10) / 10), "budget_s": duration_s}
    )
    blocks = Blocks(planned=planned, reserve=total - planned)
    return scenario.model_copy(update={"blocks": blocks, "timing": timing})


def _with_reserve(planned: int) -> int:
    """`planned` blocks and a fifth more in reserve; a single one has none."""
    return planned + (max(1, round(planned * RESERVE_PER_PLANNED)) if planned > 1 else 0)


def describe_plan(scenario: Scenario, costs: Costs = LOCAL) -> list[str]:
    """The plan for a reader, a few lines; printed before the start."""
    timing, blocks, load, noise = scenario.timing, scenario.blocks, scenario.load, scenario.noise
    targets = ", ".join(f"{target.replicas} × {target.name}" for target in scenario.targets)
    stressors = ", ".join(stressor.label for stressor in noise.stressors)
    one_round = f"{timing.warm_up_s:g} s warm-up + {timing.window_s:g} s window + {costs.round_s:g} s"
    rounds = f"{_count(blocks.planned, 'block')} × {_count(len(scenario.phases), 'phase')}"
    quiet = (
        "no noise"
        if not noise.nodes or not stressors
        else f"{stressors} on {noise.nodes} of {scenario.agents} nodes"
    )
    lines = [
        f"scenario  {scenario.name}, seed {scenario.seed}",
        f"phases    {', '.join(phase.name for phase in scenario.phases)}",
        f"targets   {targets}",
        f"load      {load.rate_per_s:g}/s {load.arrivals} in all, from {scenario.agents} agents",
        f"noise     {quiet}",
        f"plan      {rounds} × ({one_round}) = {_minutes(planned_s(scenario, reserve=False, costs=costs))}",
    ]
    if blocks.reserve:
        all_s = planned_s(scenario, reserve=True, costs=costs)
        time = f"{_minutes(all_s)} with them"
        if timing.budget_s is not None and timing.budget_s < all_s:
            time = f"as far as {_minutes(timing.budget_s)} go"
        lines.append(f"reserve   up to {blocks.reserve} more for void ones, {time}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _minutes(seconds: float) -> str:
    """`3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
