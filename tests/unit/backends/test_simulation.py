"""The simulated scheduler: up-front refusals, pins, decoys, and how a round's seed is used."""

from __future__ import annotations

from typing import Any

import pytest

from kabench.backends.base import Node, Round
from kabench.backends.simulation import SimulatedScheduler, decided_by, slots
from kabench.core.contention import Contention
from kabench.core.roles import roles
from kabench.core.spec import Noise, Phase, Requests, Scenario, Stressor, Target
from kabench.errors import ClusterError, SpecError

DEFAULT, AWARE = Phase(name="default", policy="default"), Phase(name="aware", policy="contention-aware")
AGAIN = Phase(name="default-again", policy="default")
QUIET, NOISY = Phase(name="quiet", pin="quiet"), Phase(name="noisy", pin="noisy")

USUAL = Requests()


def scenario(*phases: Phase, replicas: int = 4, requests: Requests = USUAL, **more: Any) -> Scenario:
    targets = (
        Target(name="cache", kind="redis", replicas=replicas, requests=requests),
        Target(name="echo", kind="http", replicas=replicas, requests=requests),
    )
    return Scenario(name="s", phases=phases or (DEFAULT, AWARE), targets=targets, **more)


def nodes(cpus: int = 2, count: int = 6) -> list[Node]:
    return slots(range(cpus), count, "boot")


def round_of(phase: Phase, *noisy: str, block: int = 1, seed: int = 1) -> Round:
    found = roles({node.name: (node.boot_id, node.cpus) for node in nodes()}, noisy)
    return Round(f"{block:03d}-{phase.name}", block, phase, noisy, seed, found)


def test_workloads_alternate_in_the_queue() -> None:
    uneven = Scenario(
        name="s",
        phases=(DEFAULT,),
        targets=(Target(name="a", kind="redis", replicas=3), Target(name="b", kind="http", replicas=1)),
    )
    assert [pod.name for pod in SimulatedScheduler(uneven, nodes()).pods()] == ["a-1", "b-1", "a-2", "a-3"]


def test_a_scheduler_of_its_own_is_refused() -> None:
    mine = Phase(name="mine", scheduler="my-scheduler")
    with pytest.raises(SpecError, match=r"phase mine: scheduler 'my-scheduler' needs --backend kubernetes"):
        SimulatedScheduler(scenario(DEFAULT, mine), nodes()).check()


def test_noise_and_decoys_take_room_on_every_node() -> None:
    # 4000m a node, 1000m of it noise or decoy: three pods of 1000m on each of six nodes, eighteen in all
    fits = scenario(replicas=9, requests=Requests(cpu_millis=1000))
    SimulatedScheduler(fits, nodes()).check()
    with pytest.raises(SpecError, match=r"more replicas than can be placed: cache-10 \(1000m CPU"):
        SimulatedScheduler(
            fits.model_copy(
                update={"targets": scenario(replicas=10, requests=Requests(cpu_millis=1000)).targets}
            ),
            nodes(),
        ).check()
    without = scenario(replicas=12, requests=Requests(cpu_millis=1000), noise=Noise(nodes=0))
    SimulatedScheduler(without, nodes()).check()


@pytest.mark.parametrize(("phase", "room"), [(NOISY, 2 * 3), (QUIET, 3 * 3)])
def test_pins_have_less_room(phase: Phase, room: int) -> None:
    half = Requests(cpu_millis=1000)
    fits = scenario(phase, replicas=room // 2, requests=half)
    SimulatedScheduler(fits, nodes()).check()
    with pytest.raises(SpecError, match=f"phase {phase.name}: more replicas than can be placed"):
        SimulatedScheduler(scenario(phase, replicas=room // 2 + 1, requests=half), nodes()).check()


def test_quiet_pins_need_a_second_cpu() -> None:
    with pytest.raises(
        ClusterError,
        match=r"pinned to quiet nodes and there are none: every node shares a CPU .*of this machine: 0\)",
    ):
        SimulatedScheduler(scenario(QUIET), nodes(cpus=1)).check()
    SimulatedScheduler(scenario(DEFAULT), nodes(cpus=1)).check()


def test_noisy_pins_need_noise() -> None:
    with pytest.raises(SpecError, match=r"phase noisy is pinned to noisy nodes, and noise.nodes is 0"):
        SimulatedScheduler(scenario(NOISY, noise=Noise(nodes=0)), nodes()).check()
    with pytest.raises(ClusterError, match="there is no noise"):
        SimulatedScheduler(scenario(NOISY), nodes()).decide(round_of(NOISY), {})


def test_pins_restrict_the_candidates_of_this_draw() -> None:
    scheduler = SimulatedScheduler(scenario(QUIET, NOISY), nodes())
    assert {d.node for d in scheduler.decide(round_of(QUIET, "node-1", "node-2"), {})} == {
        "node-4",
        "node-5",
        "node-6",
    }
    assert {d.node for d in scheduler.decide(round_of(QUIET, "node-5", "node-6"), {})} == {
        "node-1",
        "node-2",
        "node-3",
    }
    assert {d.node for d in scheduler.decide(round_of(NOISY, "node-5", "node-6"), {})} == {"node-5", "node-6"}


def test_a_draw_without_quiet_nodes_is_refused_in_its_round() -> None:
    scheduler = SimulatedScheduler(scenario(QUIET), nodes())
    with pytest.raises(ClusterError, match="shares a CPU with the noise on node-1, node-6"):
        scheduler.decide(round_of(QUIET, "node-1", "node-6"), {})


def test_which_nodes_are_noisy_changes_nothing_for_a_policy() -> None:
    scheduler = SimulatedScheduler(scenario(), nodes())
    telemetry = {f"node-{n}": Contention(10, 5, n) for n in range(1, 7)}
    for phase in (DEFAULT, AWARE):
        first = scheduler.decide(round_of(phase, "node-1", "node-2"), telemetry)
        assert scheduler.decide(round_of(phase, "node-5", "node-6"), telemetry) == first


def test_arms_of_an_a_a_pair_and_blocks_are_placed_independently() -> None:
    scheduler = SimulatedScheduler(scenario(DEFAULT, AGAIN), nodes())

    def placed(phase: Phase, block: int) -> tuple[str, ...]:
        return tuple(d.node for d in scheduler.decide(round_of(phase, block=block), {}))

    assert placed(DEFAULT, 1) == placed(DEFAULT, 1)
    assert any(placed(DEFAULT, block) != placed(AGAIN, block) for block in range(1, 5))
    assert len({placed(DEFAULT, block) for block in range(1, 9)}) > 4


def test_the_ledger_counts_stressors_that_request_nothing() -> None:
    free = Noise(stressors=(Stressor(kind="stress-cpu", requests=Requests(cpu_millis=0, memory_mib=0)),))
    SimulatedScheduler(scenario(replicas=12, requests=Requests(cpu_millis=1000), noise=free), nodes()).check()


@pytest.mark.parametrize(
    ("phase", "name"),
    [(DEFAULT, "simulated:default"), (AWARE, "simulated:contention-aware"), (QUIET, "pin:quiet")],
)
def test_who_decided(phase: Phase, name: str) -> None:
    assert decided_by(phase) == name
