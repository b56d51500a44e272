"""What a run against servers that stand already found: by phase and kind of target, and by target where there are several.

Every block and agent counts: nothing is compared, so nothing is left out. What voids a block is told beside the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from kabench.analysis.pooling import kinds_of, merged
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric, Outcomes
from kabench.core.result import CellRecord, RunResult

LATE_SHARE = 0.01
"""Part of the window by which half of the requests were late, from which on the offered rate was not reached."""

SHORT_SHARE = 0.01
"""Part of the asked count that the planned count may miss (beside what chance takes) before it is told."""


@dataclass(frozen=True)
class Loaded:
    """One kind of target in one phase, or one target of it.

    Attributes:
        phase, kind: what it is.
        target: the scenario's name of the target; "" for all of the kind.
        address: HOST:PORT of the target; "" for all of the kind.
        asked_per_s: what the scenario asks of it, averaged over the window; None in a closed loop.
        windows: how many there were.
        window_s: their length, together.
        outcomes: of all agents.
        histograms: by metric, all agents' counts added; those without a value are left out.
    """

    phase: str
    kind: str
    target: str
    address: str
    asked_per_s: float | None
    windows: int
    window_s: float
    outcomes: Outcomes
    histograms: Mapping[Metric, Histogram] = field(default_factory=dict)

    def histogram(self, metric: Metric) -> Histogram:
        """That metric's; empty where there is none."""
        return self.histograms.get(metric, Histogram())

    def per_s(self, count: int) -> float | None:
        """So many a second of window; None without a window."""
        return count / self.window_s if self.window_s else None


def is_standing(result: RunResult) -> bool:
    """Whether the run's targets stood already: it compares nothing then."""
    phases = result.scenario.get("phases", ())
    return bool(phases) and all(phase.get("standing") for phase in phases)


def is_closed(scenario: Mapping[str, Any]) -> bool:
    """Whether connections sent their next request only once they had a reply."""
    return bool(scenario.get("load", {}).get("loop", "open") == "closed")


def loaded_of(result: RunResult) -> list[Loaded]:
    """All kinds of all phases, in the scenario's order, each followed by its targets where it has more than one.

    Raises:
        LogError: a histogram is corrupt.
    """
    found = []
    for phase in result.scenario["phases"]:
        cells = [record for record in result.cells if record.cell.phase == phase["name"]]
        for kind in kinds_of(cells):
            targets = [target for target in result.scenario["targets"] if target["kind"] == kind]
            own = [record for record in cells if record.cell.kind == kind]
            found.append(_loaded(result, own, kind, targets))
            if len(targets) > 1:
                for target in targets:
                    of_it = [record for record in own if record.cell.workload == target["name"]]
                    if of_it:
                        found.append(_loaded(result, of_it, kind, [target], single=True))
    return found


def _loaded(
    result: RunResult,
    cells: Sequence[CellRecord],
    kind: str,
    targets: Sequence[Mapping[str, Any]],
    *,
    single: bool = False,
) -> Loaded:
    load = result.scenario["load"]
    phase = next(one for one in result.scenario["phases"] if one["name"] == cells[0].cell.phase)
    lengths_s = _lengths_s(result, cells)
    histograms = {metric: merged(cells, metric) for metric in Metric}
    asked = None
    if not is_closed(result.scenario):
        share = len(targets) / len(result.scenario["targets"])
        asked = (phase.get("rate_per_s") or load["rate_per_s"]) * share * mean_factor(points_of(load))
    return Loaded(
        phase=phase["name"],
        kind=kind,
        target=targets[0]["name"] if single else "",
        address=str(targets[0].get("address") or "") if single else "",
        asked_per_s=asked,
        windows=len(lengths_s),
        window_s=sum(lengths_s),
        outcomes=sum((record.outcomes for record in cells), Outcomes()),
        histograms={metric: histogram for metric, histogram in histograms.items() if histogram.total},
    )


def _lengths_s(result: RunResult, cells: Sequence[CellRecord]) -> list[float]:
    """The length of each window; one that an interruption cut short is as long as it has whole seconds."""
    window_s = float(result.scenario["timing"]["window_s"])
    cut = {block.block for block in result.blocks if any(one.code == "interrupted" for one in block.void)}
    lengths: dict[tuple[str, int], float] = {}
    for record in cells:
        block = record.cell.block
        held = min(window_s, len(record.series.ok)) if block in cut else window_s
        lengths[record.cell.phase, block] = max(lengths.get((record.cell.phase, block), 0.0), held)
    return list(lengths.values())


def points_of(load: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The profile of a scenario's load: (part of the window, factor)."""
    return [(point["at"], point["factor"]) for point in load.get("profile", ())]


def factor_at(points: Sequence[tuple[float, float]], at: float) -> float:
    """The profile's factor where the part `at` of the window has passed; before the first point it is that point's."""
    if not points:
        return 1.0
    before = [point for point in points if point[0] <= at]
    after = [point for point in points if point[0] > at]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (x0, y0), (x1, y1) = before[-1], after[0]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def mean_factor(points: Sequence[tuple[float, float]]) -> float:
    """The profile's mean over the window: rates change evenly between two points."""
    if not points:
        return 1.0
    whole = [(0.0, points[0][1]), *points, (1.0, points[-1][1])]
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(whole))


def shortfalls(loaded: Loaded) -> list[str]:
    """Why the rate that was asked for did not reach the target, if it did not; a closed loop offers none.

    The target's back-pressure and the generator's lateness are told apart: who could not keep up is the first thing that
    a reader needs to know.
    """
    if loaded.asked_per_s is None:
        return []
    return list(_shortfalls(loaded, loaded.asked_per_s))


def _shortfalls(loaded: Loaded, asked_per_s: float) -> Iterator[str]:
    outcomes, window_s = loaded.outcomes, loaded.window_s
    asked = asked_per_s * window_s
    chance = 5 * asked**0.5  # a Poisson count is that far off once in two million
    if outcomes.planned < asked - max(SHORT_SHARE * asked, chance):
        yield f"{asked_per_s:,.0f}/s asked, {outcomes.planned / window_s:,.0f}/s planned"
    if outcomes.skipped:
        share = outcomes.skipped / outcomes.planned
        yield (
            f"{outcomes.skipped:,} of {outcomes.planned:,} requests ({share:.1%}) were skipped: as many as allowed "
            "were in flight (max_in_flight), or the agents came a time-out late"
        )
    never = outcomes.planned - outcomes.skipped - outcomes.sent
    if never > 0:
        yield f"{never:,} of {outcomes.planned:,} requests were never sent"
    for metric, why in (
        (Metric.LAG, "the agents were late by {late:.0f} ms or more at half of their sends"),
        (Metric.WAIT, "half of the requests waited {late:.0f} ms or more for a free connection"),
    ):
        late_ns = loaded.histogram(metric).quantile_ns(0.5)
        if late_ns is not None and late_ns / 1e9 >= LATE_SHARE * window_s / loaded.windows:
            yield why.format(late=late_ns / 1e6)
