"""What the charts show, worked out of a run's results once: no drawing here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from kabench.analysis.pooling import (
    REPORTED_BEYOND,
    Group,
    block_p99_ns,
    grouped,
    kinds_of,
    merged,
    quiet_cells,
)
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric
from kabench.core.result import Contrast, KindComparison, RunResult, Verdict

CLAIM_SOURCE = "KubeAttention's benchmark, published figures; generated at random, not measured"
CLAIM_P99_MS = (45.0, 18.0)
CLAIM_ON_NOISY = (0.45, 0.12)
"""Claims by others that charts show beside what was measured, always as claims."""


def curve_of(
    histogram: Histogram | None, points: int = 160, furthest: float = 4.0
) -> tuple[list[float], list[float]]:
    """Nines (−log₁₀(1 − q), from p50 on) and milliseconds, as far as 100 samples lie beyond; empty if nowhere."""
    if histogram is None or histogram.total < 2 * REPORTED_BEYOND:
        return [], []
    first, last = math.log10(2), math.log10(histogram.total / REPORTED_BEYOND)
    nines = [first + (min(last, furthest) - first) * step / (points - 1) for step in range(points)]
    values = histogram.quantiles_ns([1 - 10**-nine for nine in nines])
    return nines, [value / 1e6 for value in values if value is not None]


@dataclass(frozen=True)
class KindFacts:
    """One kind of target, as quiet agents saw it over the valid blocks.

    Attributes:
        workloads: the scenario's names for targets of this kind.
        slos_ms: promised p99, by workload.
        p99_ns: by phase, the p99 of each block that has one, by block.
        histograms: by (phase, metric), all blocks merged.
    """

    kind: str
    workloads: Sequence[str]
    slos_ms: dict[str, float]
    p99_ns: dict[str, dict[int, int]]
    histograms: dict[tuple[str, Metric], Histogram]

    def requests(self, phase: str) -> int:
        """How many responses are in the phase's histogram."""
        found = self.histograms.get((phase, Metric.RESPONSE))
        return found.total if found else 0

    def curve(self, phase: str, metric: Metric, points: int = 160) -> tuple[list[float], list[float]]:
        """Nines (−log₁₀(1 − q), from p50 on) and milliseconds, as far as 100 samples lie beyond; empty if nowhere."""
        return curve_of(self.histograms.get((phase, metric)), points)


@dataclass(frozen=True)
class Facts:
    """The run, and what is drawn of it."""

    result: RunResult
    phases: list[str]
    kinds: list[KindFacts] = field(default_factory=list)

    @classmethod
    def of(cls, result: RunResult) -> Facts:
        """Decode and merge what the charts need.

        Raises:
            LogError: a histogram is corrupt.
        """
        phases = [str(phase["name"]) for phase in result.scenario["phases"]]
        cells = quiet_cells(result.blocks, result.cells)
        p99 = block_p99_ns(grouped(cells), Metric.RESPONSE)
        kinds = []
        for kind in kinds_of(cells):
            targets = [target for target in result.scenario["targets"] if target["kind"] == kind]
            own = [record for record in cells if record.cell.kind == kind]
            kinds.append(
                KindFacts(
                    kind=kind,
                    workloads=[target["name"] for target in targets],
                    slos_ms={t["name"]: float(t["slo"]["p99_ms"]) for t in targets if t.get("slo")},
                    p99_ns={phase: _blocks(p99, phase, kind) for phase in phases},
                    histograms={
                        (phase, metric): merged([r for r in own if r.cell.phase == phase], metric)
                        for phase in phases
                        for metric in (Metric.RESPONSE, Metric.SERVICE)
                    },
                )
            )
        return cls(result, phases, kinds)

    @property
    def effect(self) -> Contrast | None:
        """The first phase against the second."""
        return next((c for c in self.result.comparison.contrasts if c.role == "effect"), None)

    def compared(self, kind: str) -> KindComparison | None:
        """The effect on one kind."""
        return next((k for k in self.effect.kinds if k.kind == kind), None) if self.effect else None

    def verdict(self, kind: str) -> Verdict | None:
        """What may be said of it."""
        return next((v for v in self.result.comparison.verdicts if v.kind == kind), None)

    @property
    def nothing(self) -> tuple[str, str] | None:
        """Stamp and reason where there is no panel to draw."""
        if self.kinds:
            return None
        blocks = self.result.blocks
        if not blocks:
            return "NOTHING MEASURED", "The run ended before its first block."
        if not any(block.valid for block in blocks):
            return (
                "VOID",
                f"None of {len(blocks)} blocks is valid: {self.void_summary or 'no reason recorded'}.",
            )
        return (
            "NO QUIET AGENT",
            "Every agent shared a CPU with noise, so its own delay follows the treatment.",
        )

    @property
    def void_summary(self) -> str:
        """How often each reason voided a block: `lag 3, strangers 1`."""
        codes = Counter(code for b in self.result.blocks for code in {reason.code for reason in b.void})
        return ", ".join(f"{code} {count}" for code, count in codes.most_common())

    @property
    def samples(self) -> str:
        """How many responses stand behind each phase of a kind: `38,400` or `38,120–38,400 requests`."""
        counts = [kind.requests(phase) for kind in self.kinds for phase in self.phases]
        low, high = min(counts, default=0), max(counts, default=0)
        return f"{high:,} requests" if low == high else f"{low:,}–{high:,} requests"

    @property
    def basis(self) -> str:
        """Blocks, and how the placements came about, in one line."""
        comparison = self.result.comparison
        parts = [f"{comparison.valid_blocks} valid blocks, {comparison.void_blocks} void"]
        if self.result.placement_note:
            parts.insert(0, self.result.placement_note)
        return " · ".join([*parts, f"{self.result.backend} backend", f"run {self.result.run}"])


def _blocks(p99: dict[Group, int | None], phase: str, kind: str) -> dict[int, int]:
    return {
        group.block: value
        for group, value in sorted(p99.items())
        if value is not None and (group.phase, group.kind) == (phase, kind)
    }
