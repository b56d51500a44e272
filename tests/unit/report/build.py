"""Synthetic runs for tests: latencies drawn from a model of quiet and noisy CPUs. Never shown as a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kabench.analysis.comparison import compare
from kabench.core.histogram import Histogram
from kabench.core.hlog import Extremes
from kabench.core.identity import Cell, Kind, Outcomes, window_name
from kabench.core.result import (
    SCHEMA,
    AgentWindow,
    BlockRecord,
    CellRecord,
    Comparison,
    NodeRecord,
    NoiseRecord,
    Placement,
    RoundRecord,
    RunResult,
    SecondsRecord,
    VoidReason,
)
from kabench.core.spec import Blocks, Load, Noise, Phase, Scenario, Slo, Target, Timing

NODES = tuple(f"node-{number}" for number in range(1, 7))
WORKERS = tuple(f"kabench-worker{number}" for number in ("", 2, 3, 4, 5, 6))
DEFAULT = Phase(name="default", policy="default")
AWARE = Phase(name="contention-aware", policy="contention-aware")
CONTROLS = (
    Phase(name="oracle-quiet", pin="quiet"),
    Phase(name="oracle-noisy", pin="noisy"),
    Phase(name="default-again", policy="default"),
)
KUBERNETES = (
    Phase(name="default", scheduler="default-scheduler"),
    Phase(name="oracle-quiet", pin="quiet"),
    Phase(name="oracle-noisy", pin="noisy"),
    Phase(name="default-again", scheduler="default-scheduler"),
)
MINE = Phase(name="mine", scheduler="my-scheduler")
REDIS = Target(name="redis-latency-test", kind=Kind.REDIS, slo=Slo(p99_ms=1))
HTTP = Target(name="http-echo", kind=Kind.HTTP, slo=Slo(p99_ms=5))


@dataclass
class Recipe:
    """What a synthetic run is like; the defaults are a quick run in which the second phase avoids noise.

    `on_noisy` is, by phase, the chance that a target is put on a noisy node; `scatter` the blocks' own spread.
    """

    phases: Sequence[Phase] = (DEFAULT, AWARE)
    targets: Sequence[Target] = (REDIS, HTTP)
    blocks: int = 8
    void: Mapping[int, Sequence[VoidReason]] = field(default_factory=dict)
    on_noisy: Mapping[str, float] = field(default_factory=dict)
    noise_nodes: int = 2
    samples: int = 400
    scatter: float = 0.12
    error_share: Mapping[str, float] = field(default_factory=dict)
    service_flat: bool = False
    roles: Sequence[str] = ("noisy", "noisy", "shared", "quiet", "quiet", "quiet")
    backend: str = "local"
    unplaced: Mapping[str, int] = field(default_factory=dict)
    seed: int = 7

    @property
    def nodes(self) -> tuple[str, ...]:
        return WORKERS if self.backend == "kubernetes" else NODES

    @property
    def placement_note(self) -> str:
        return "" if self.backend == "kubernetes" else "simulated placement"

    def chance(self, phase: Phase) -> float:
        pinned = {"pin:quiet": 0.0, "pin:noisy": 1.0, "policy:contention-aware": 0.05}
        return self.on_noisy.get(phase.name, pinned.get(phase.way, 0.4))


def build(recipe: Recipe | None = None) -> RunResult:
    """A whole result, comparison included."""
    recipe = recipe or Recipe()
    scenario = Scenario(
        name="synthetic",
        phases=tuple(recipe.phases),
        targets=tuple(recipe.targets),
        noise=Noise(nodes=recipe.noise_nodes),
    )
    rng = np.random.default_rng(recipe.seed)
    blocks, rounds, cells = [], [], []
    for number in range(1, recipe.blocks + 1):
        block = _block(recipe, number, rng)
        blocks.append(block)
        level = float(np.exp(rng.normal(0, recipe.scatter)))
        for phase in recipe.phases:
            placements = _placements(recipe, block, phase, rng)
            rounds.append(_round(recipe, block, phase, placements, rng))
            cells += _cells(recipe, block, phase, placements, level, rng)
    plain = scenario.model_dump(mode="json")
    nodes = [NodeRecord(n, [i // 3], "boot", 1000, 1 << 30) for i, n in enumerate(recipe.nodes)]
    return RunResult(
        run="synthetic-0001",
        schema=SCHEMA,
        kabench="0.1.0",
        status="finished",
        started_realtime_ns=1_700_000_000_000_000_000,
        finished_realtime_ns=1_700_000_200_000_000_000,
        backend=recipe.backend,
        placement_note=recipe.placement_note,
        scenario=plain,
        scenario_sha256=scenario.fingerprint,
        seed=scenario.seed,
        environment={"kernel": "synthetic"},
        nodes=nodes,
        blocks=blocks,
        rounds=rounds,
        cells=cells,
        summary={},
        comparison=compare(plain, recipe.placement_note, blocks, rounds, cells, nodes),
    )


STANDING = Phase(name="load", standing="given")
A_REDIS = Target(name="redis-1", kind=Kind.REDIS, replicas=1, address="127.0.0.1:6379")
B_REDIS = Target(name="redis-2", kind=Kind.REDIS, replicas=1, address="[::1]:6380")
A_SERVER = Target(name="http-1", kind=Kind.HTTP, replicas=1, address="db.example.org:8080")


@dataclass
class LoadRecipe:
    """What a synthetic load run is like: service times around 0.1 ms, and a stall of `stall_ms` in each second.

    `samples` are of each agent, target and second.
    """

    targets: Sequence[Target] = (A_REDIS,)
    agents: int = 2
    seconds: int = 12
    samples: int = 1000
    load: Mapping[str, object] = field(default_factory=dict)
    lag_ns: int = 20_000
    wait_ns: int = 0
    stall_ms: float = 40
    null_p99_ns: int = 40_000
    cpu_share: float = 0.2
    skipped: int = 0
    errors: int = 0
    status: str = "sealed"
    connections: Mapping[str, Extremes] = field(default_factory=dict)
    seed: int = 11

    @property
    def closed(self) -> bool:
        return self.load.get("loop") == "closed"


def build_load(recipe: LoadRecipe | None = None) -> RunResult:
    """The result of a run against standing servers."""
    recipe = recipe or LoadRecipe()
    rate = {"rate_per_s": recipe.samples * recipe.agents * len(recipe.targets)}
    scenario = Scenario(
        name="load",
        agents=recipe.agents,
        phases=(STANDING,),
        targets=tuple(recipe.targets),
        noise=Noise(nodes=0, stressors=()),
        load=Load(**(rate | dict(recipe.load))),
        timing=Timing(window_s=recipe.seconds),
        blocks=Blocks(planned=1, reserve=0),
    )
    rng = np.random.default_rng(recipe.seed)
    names = [f"agent-{number + 1}" for number in range(recipe.agents)]
    cells = [_load_cell(recipe, name, target, rng) for name in names for target in recipe.targets]
    agents = [
        AgentWindow(
            agent=name,
            status=recipe.status,
            role="quiet",
            outcomes=sum((c.outcomes for c in cells if c.cell.agent == name), Outcomes()),
            lag_p99_ns=recipe.lag_ns,
            null_p50_ns=recipe.null_p99_ns // 2,
            null_p99_ns=recipe.null_p99_ns,
            cpu_share=recipe.cpu_share,
            run_delay_ns=recipe.seconds * 30_000_000,
            connections=dict(recipe.connections),
        )
        for name in names
    ]
    return RunResult(
        run="synthetic-load",
        schema=SCHEMA,
        kabench="0.1.0",
        status="finished",
        started_realtime_ns=1_700_000_000_000_000_000,
        finished_realtime_ns=1_700_000_200_000_000_000,
        backend="local",
        placement_note="",
        scenario=scenario.model_dump(mode="json"),
        scenario_sha256=scenario.fingerprint,
        seed=scenario.seed,
        environment={"kernel": "synthetic"},
        nodes=[NodeRecord(name, [0], "boot", 1000, 1 << 30) for name in names],
        blocks=[BlockRecord(1, ["load"], [], dict.fromkeys(names, "quiet"), valid=True)],
        rounds=[RoundRecord(window_name(1, "load"), 1, "load", agents=agents)],
        cells=cells,
        summary={},
        comparison=Comparison(),
        seconds=[
            *(_load_seconds(recipe, kind, "", rng) for kind in _several(recipe)),
            *(_load_seconds(recipe, target.kind, target.name, rng) for target in recipe.targets),
        ],
    )


def _several(recipe: LoadRecipe) -> list[Kind]:
    kinds = [target.kind for target in recipe.targets]
    return [kind for kind in dict.fromkeys(kinds) if kinds.count(kind) > 1]


def _load_seconds(recipe: LoadRecipe, kind: Kind, name: str, rng: np.random.Generator) -> SecondsRecord:
    """The window's seconds, and one of drain."""
    count = recipe.seconds + 1
    ok = [int(n) for n in rng.poisson(recipe.samples * recipe.agents, recipe.seconds)] + [3]

    def times(base_ns: float) -> dict[str, list[int | None]]:
        factors = {"p50": 1, "p90": 1.6, "p99": 2.6, "p99.9": 4, "max": 6}
        return {
            q: [int(base_ns * f * rng.uniform(0.9, 1.2)) for _ in range(count)] for q, f in factors.items()
        }

    return SecondsRecord(
        window=window_name(1, "load"),
        phase="load",
        block=1,
        kind=str(kind),
        target=name,
        start_realtime_ns=1_700_000_000_000_000_000,
        window_ns=recipe.seconds * 1_000_000_000,
        interval_ns=1_000_000_000,
        agents=[recipe.agents] * count,
        ok=ok,
        error=[recipe.errors] * count,
        timeout=[0] * count,
        skipped=[recipe.skipped // recipe.seconds] * count,
        response_ns=times(1.3e5 * (1 if recipe.closed else recipe.stall_ms)),
        service_ns=times(1.2e5),
    )


def _load_cell(recipe: LoadRecipe, agent: str, target: Target, rng: np.random.Generator) -> CellRecord:
    """Requests due in the first `stall_ms` of a second wait for its end; their service time shows one of them."""
    count = recipe.samples * recipe.seconds
    service = rng.lognormal(np.log(1e5), 0.4, count)
    due = rng.random(count) * 1e9
    stall = recipe.stall_ms * 1e6 * (not recipe.closed)
    response = service + np.maximum(0, stall - due) + recipe.lag_ns / 2
    kept = count - recipe.errors - recipe.skipped
    times = {"response": response[: count - recipe.errors], "service": service[:kept]}
    if not recipe.closed:
        lag = rng.random(count) * recipe.lag_ns
        times |= {"lag": lag, "wait": rng.random(count - recipe.skipped) * recipe.wait_ns}
    outcomes = Outcomes(
        count,
        count - recipe.skipped,
        kept,
        recipe.errors,
        0,
        recipe.skipped,
        {"reset": recipe.errors} if recipe.errors else {},
    )
    cell = Cell("load", 1, agent, target.name, "given", target.name, target.kind)
    return CellRecord(cell, outcomes, {name: _encoded(values) for name, values in times.items()})


def _block(recipe: Recipe, number: int, rng: np.random.Generator) -> BlockRecord:
    roles = dict(zip(recipe.nodes, recipe.roles, strict=True))
    reasons = list(recipe.void.get(number, ()))
    order = [phase.name for phase in recipe.phases]
    rng.shuffle(order)
    noisy = [name for name, role in roles.items() if role == "noisy"]
    return BlockRecord(number, order, noisy, roles, valid=not reasons, void=reasons)


def _placements(
    recipe: Recipe, block: BlockRecord, phase: Phase, rng: np.random.Generator
) -> list[Placement]:
    by_role = {
        role: [n for n in recipe.nodes if block.roles[n] == role] for role in ("noisy", "shared", "quiet")
    }
    calm = by_role["quiet"] + by_role["shared"] * (phase.way != "pin:quiet")
    found = []
    for target in recipe.targets:
        for replica in range(target.replicas):
            loud = bool(by_role["noisy"]) and rng.random() < recipe.chance(phase)
            node = str(rng.choice(by_role["noisy"] if loud or not calm else calm))
            name = f"{target.name}-{replica}"
            pending_ns = int(rng.lognormal(16.5, 0.4)) if recipe.backend == "kubernetes" else 0
            found.append(
                Placement(
                    name,
                    target.name,
                    str(target.kind),
                    node,
                    block.roles[node],
                    phase.scheduler or phase.way,
                    pending_ns,
                )
            )
    return found[: len(found) - recipe.unplaced.get(phase.name, 0)]


def _round(
    recipe: Recipe,
    block: BlockRecord,
    phase: Phase,
    placements: list[Placement],
    rng: np.random.Generator,
) -> RoundRecord:
    agents = []
    planned = recipe.samples * len(placements)
    for node in recipe.nodes:
        role = block.roles[node]
        lag = rng.uniform(0.1, 0.3) if role == "quiet" else rng.uniform(2, 4)
        agents.append(
            AgentWindow(
                agent=node,
                status="sealed",
                role=role,
                outcomes=Outcomes(planned, planned, planned),
                lag_p99_ns=int(lag * 1e6),
                null_p50_ns=int(rng.uniform(50, 60) * 1e3),
                null_p99_ns=int(lag * 1e6),
            )
        )
    noise = [
        NoiseRecord(
            node,
            stressor,
            "built-in" if recipe.backend == "local" else "stress-ng 0.15.06",
            6.0,
            float(rng.normal(6e4, 2e3)),
        )
        for node in block.noise_nodes
        for stressor in ("stress-cache", "stress-membw")
    ]
    return RoundRecord(
        window=window_name(block.block, phase.name),
        block=block.block,
        phase=phase.name,
        placements=placements,
        agents=agents,
        noise=noise,
        strangers_cpu_share={"1": 0.03} if recipe.backend == "local" else None,
    )


def _cells(
    recipe: Recipe,
    block: BlockRecord,
    phase: Phase,
    placements: list[Placement],
    level: float,
    rng: np.random.Generator,
) -> list[CellRecord]:
    found = []
    for agent in recipe.nodes:
        for placed in placements:
            service = _service_ns(recipe, placed, level, rng)
            lag = rng.exponential(3e4, recipe.samples) * (1 if block.roles[agent] == "quiet" else 20)
            seen = service.copy() if not recipe.service_flat else _service_ns(recipe, placed, level, rng)
            if recipe.service_flat:
                seen = rng.lognormal(np.log(9e4), 0.5, recipe.samples)
            errors = int(recipe.error_share.get(phase.name, 0.0) * recipe.samples)
            kept = recipe.samples - errors
            found.append(
                CellRecord(
                    Cell(
                        phase.name,
                        block.block,
                        agent,
                        placed.target,
                        placed.node,
                        placed.workload,
                        Kind(placed.kind),
                    ),
                    Outcomes(
                        recipe.samples,
                        recipe.samples,
                        kept,
                        errors,
                        errors={"status": errors} if errors else {},
                    ),
                    {"response": _encoded((service + lag)[:kept]), "service": _encoded(seen[:kept])},
                )
            )
    return found


def _service_ns(
    recipe: Recipe, placed: Placement, level: float, rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Around 80 µs; beside noise, one request in eight waits for a scheduler tick."""
    base = rng.lognormal(np.log(8e4 if placed.kind == "redis" else 1.6e5), 0.45, recipe.samples) * level
    if placed.role == "noisy":
        base += rng.exponential(1.1e6, recipe.samples) * (rng.random(recipe.samples) < 0.12) * level
    return base


def _encoded(values_ns: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    histogram = Histogram()
    histogram.record_many(values_ns.astype(np.int64))
    return histogram.encode()
