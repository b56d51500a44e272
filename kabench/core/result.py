"""What a run found: the content of `results.json`. Pure data; nanoseconds and names throughout.

Charts, tables and reports read only this.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kabench.core.contention import Contention
from kabench.core.hlog import Extremes
from kabench.core.identity import Cell, Outcomes

SCHEMA = 1


class Series(msgspec.Struct, frozen=True):
    """A cell's seconds, by completion: parallel lists, one entry an interval (drain intervals at the end)."""

    ok: list[int] = []
    error: list[int] = []
    timeout: list[int] = []
    skipped: list[int] = []
    response_p50_ns: list[int | None] = []
    response_p99_ns: list[int | None] = []
    response_max_ns: list[int | None] = []


class SecondsRecord(msgspec.Struct, frozen=True):
    """A target's seconds in one window, all agents' counts added: parallel lists, one entry an interval, by completion.

    Unlike those of single cells, these percentiles are of the sum. Entries beyond `window_ns` are the drain.

    Attributes:
        target: "" for all targets of the kind, where there are several.
        agents: how many logs hold that interval.
        response_ns, service_ns: by quantile ("p50", "p90", "p99", "p99.9", "max"); None where no request was over.
    """

    window: str
    phase: str
    block: int
    kind: str
    target: str
    start_realtime_ns: int
    window_ns: int
    interval_ns: int
    agents: list[int] = []
    ok: list[int] = []
    error: list[int] = []
    timeout: list[int] = []
    skipped: list[int] = []
    response_ns: dict[str, list[int | None]] = {}
    service_ns: dict[str, list[int | None]] = {}


class CellRecord(msgspec.Struct, frozen=True):
    """One cell. `histograms` holds encoded histograms (HdrHistogram V2, base64) by metric; empty ones are left out."""

    cell: Cell
    outcomes: Outcomes
    histograms: dict[str, str]
    series: Series = Series()


class NodeRecord(msgspec.Struct, frozen=True):
    """A worker, and its agent's view of it."""

    name: str
    cpus: list[int]
    boot_id: str
    cpu_millis: int
    memory_bytes: int
    environment: dict[str, str] = {}


class AgentWindow(msgspec.Struct, frozen=True):
    """One agent in one window: the state of the instrument.

    Attributes:
        status: "sealed", "unsealed" (the log was cut) or "missing".
        role: "quiet", "shared" or "noisy" in this block.
        clock_offset_ns, clock_error_ns: agent's monotonic clock minus the controller's, and half the best round trip.
        start_skew_ns: how late (+) the agent began, by the controller's clock.
        lag_p99_ns: over all targets, in a closed loop the null echo's; None without samples.
        null_p50_ns, null_p99_ns: service time of the null echo, the floor of this instrument.
        connections: the fastest and the slowest to each target that has at least two.
    """

    agent: str
    status: str
    role: str
    outcomes: Outcomes = Outcomes()
    clock_offset_ns: int = 0
    clock_error_ns: int = 0
    start_skew_ns: int = 0
    lag_p99_ns: int | None = None
    null_p50_ns: int | None = None
    null_p99_ns: int | None = None
    cpu_share: float = 0.0
    collections: int = 0
    reconnects: int = 0
    clamped: int = 0
    run_delay_ns: int | None = None
    connections: dict[str, Extremes] = {}


class Placement(msgspec.Struct, frozen=True):
    """Where a replica was put; `role` of that node in this block."""

    target: str
    workload: str
    kind: str
    node: str
    role: str
    decided_by: str
    pending_ns: int = 0
    reason: dict[str, float] = {}


class NoiseRecord(msgspec.Struct, frozen=True):
    """What a stressor did in a round."""

    node: str
    stressor: str
    tool: str
    seconds: float
    ops: float | None
    cpu_seconds: float | None = None
    note: str = ""


class RoundRecord(msgspec.Struct, frozen=True):
    """One phase in one block. `strangers_cpu_share` is by CPU, over the window, of quiet CPUs only."""

    window: str
    block: int
    phase: str
    placements: list[Placement] = []
    agents: list[AgentWindow] = []
    contention: dict[str, Contention] = {}
    noise: list[NoiseRecord] = []
    casualties: list[dict[str, Any]] = []
    strangers_cpu_share: dict[str, float] | None = None
    started_realtime_ns: int = 0
    error: str = ""


class VoidReason(msgspec.Struct, frozen=True):
    """Why a block does not count. `code` is one of `analysis.validity.CODES`; `phase` where it was seen ("": all)."""

    code: str
    phase: str
    detail: str


class BlockRecord(msgspec.Struct, frozen=True):
    """Every phase once, on the same noise. `valid` when no reason speaks against it."""

    block: int
    order: list[str]
    noise_nodes: list[str]
    roles: dict[str, str]
    reserve: bool = False
    valid: bool = False
    void: list[VoidReason] = []


class BlockPoint(msgspec.Struct, frozen=True):
    """A valid block's pair: p99 response of A and B over the quiet agents, and ln(B/A)."""

    block: int
    a_ns: int
    b_ns: int
    log_ratio: float


class KindComparison(msgspec.Struct, frozen=True):
    """B over A for one kind of target; None where nothing can be said, with `withheld` telling why.

    Attributes:
        ratio, low, high: geometric mean of the blocks' ratios; interval by inverting the exact sign-flip test.
        t_low, t_high: Student's interval on the log-ratios, beside it.
        p, p_holm: exact two-sided sign-flip; after Holm over the kinds.
        service_ratio, service_low, service_high: the same of service time ("claim only what both show").
        a_error_share, b_error_share: errors of sent.
    """

    kind: str
    blocks: list[BlockPoint] = []
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    t_low: float | None = None
    t_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    service_ratio: float | None = None
    service_low: float | None = None
    service_high: float | None = None
    a_error_share: float = 0.0
    b_error_share: float = 0.0
    withheld: str = ""


class Contrast(msgspec.Struct, frozen=True):
    """Two phases side by side. `role`: "effect" (A/B), "oracle" (quiet/noisy) or "a/a"."""

    role: str
    a: str
    b: str
    kinds: list[KindComparison]


class Verdict(msgspec.Struct, frozen=True):
    """What may be said of one kind.

    Attributes:
        outcome: better, worse, equivalent or inconclusive; "headroom" for better or worse where B is an oracle arm;
            "difference" or "no difference found" without controls; "none" where the run allows no statement.
        sentence: the same for a reader, with its reason.
        smallest_effect: the ratio this run could have found (as a factor > 1), None where unknown.
    """

    kind: str
    outcome: str
    sentence: str
    smallest_effect: float | None = None


class PlacementAccuracy(msgspec.Struct, frozen=True):
    """Where one phase put its targets, over the valid blocks; shares are of `placed`.

    Attributes:
        to_schedule_p50_ns, to_schedule_max_ns: from a target's creation until it was bound to a node.
        unplaced: targets that the scenario asks for and that found no node.
        decided_by: who bound so many of them.
    """

    phase: str
    placed: int
    on_noisy: int
    on_shared: int
    on_quiet: int
    chance_noisy: float
    by_block: list[float] = []
    to_schedule_p50_ns: int | None = None
    to_schedule_max_ns: int | None = None
    unplaced: int = 0
    decided_by: dict[str, int] = {}


class AgentsP99(msgspec.Struct, frozen=True):
    """p99 response time of one phase and kind, seen from quiet nodes in valid blocks: of all agents, and each one's own.

    One odd client can own a pooled tail. None: withheld, with too few samples beyond it.
    """

    phase: str
    kind: str
    pooled_ns: int | None
    by_agent: dict[str, int | None] = {}


class Comparison(msgspec.Struct, frozen=True):
    """The run's answer. `headline` is one sentence; `notes` what a reader must know beside it."""

    contrasts: list[Contrast] = []
    verdicts: list[Verdict] = []
    accuracy: list[PlacementAccuracy] = []
    agents_p99: list[AgentsP99] = []
    headline: str = ""
    notes: list[str] = []
    valid_blocks: int = 0
    void_blocks: int = 0


class Tried(msgspec.Struct, frozen=True, tag="tried", tag_field="event"):
    """One window of a search for the highest rate that holds a promise.

    Attributes:
        promise: as it was given.
        phase: the window's phase, which has its rate.
        rate_per_s: what was asked for, in all.
        outcome: "holds", or what failed: "slo", "errors", "generator" (the instrument itself), "lost" (not measured).
        detail: why it does not hold.
        quantiles_ns: response times by name ("p99"), of the worst target; None without any.
        error_share: of the planned requests, of the worst target: errors, time-outs and skipped.
        ok_per_s: answered in time, in all.
        lag_p99_ns, cpu_share: of the worst agent.
    """

    promise: str
    phase: str
    rate_per_s: float
    outcome: str
    detail: str
    quantiles_ns: dict[str, int | None]
    error_share: float
    ok_per_s: float
    lag_p99_ns: int | None = None
    cpu_share: float = 0.0


class RunResult(msgspec.Struct, frozen=True):
    """`results.json`. `summary` has the shape that `kabench merge --json` prints; `seconds` is of standing targets only."""

    run: str
    schema: int
    kabench: str
    status: str
    started_realtime_ns: int
    finished_realtime_ns: int
    backend: str
    placement_note: str
    scenario: dict[str, Any]
    scenario_sha256: str
    seed: int
    environment: dict[str, Any]
    nodes: list[NodeRecord]
    blocks: list[BlockRecord]
    rounds: list[RoundRecord]
    cells: list[CellRecord]
    summary: dict[str, Any]
    comparison: Comparison
    seconds: list[SecondsRecord] = []
    journal: list[dict[str, Any]] = []
