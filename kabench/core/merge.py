"""Sums of windows, by phase and kind: histograms are added, percentiles are never averaged.

Adding is associative and commutative, and a window of an agent counts once, so that equal windows give equal bytes in
whatever order and however often they are found. The null echo is never in a sum.

Rates come from windows: requests that were ok, over the length of the windows they were due in. Agents work side by
side, so a window that six of them share counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kabench.core.histogram import GEOMETRY, Histogram
from kabench.core.hlog import LOG_VERSION, Header
from kabench.core.identity import Kind, Metric, Outcomes, WindowId, window_name
from kabench.core.merged_log import Key, Member, MergedHeader, Part, write_merged
from kabench.core.result import CellRecord
from kabench.core.totals import TargetTotals, WindowTotals
from kabench.errors import LogError, SpecError

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

PartKey = tuple[bool, str, Kind]
"""(void, phase, kind)."""


class Corrupt(msgspec.Struct, frozen=True, order=True):
    """A file that could not be read whole, and why."""

    path: str
    reason: str


@dataclass
class Totals:
    """All that is known of one phase and kind. `windows`: length in nanoseconds by (run, window)."""

    outcomes: Outcomes = field(default_factory=Outcomes)
    histograms: dict[Metric, Histogram] = field(default_factory=dict)
    windows: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(
        self,
        outcomes: Outcomes,
        histograms: Mapping[Metric, Histogram],
        windows: Mapping[tuple[str, str], int],
    ) -> None:
        """Add to these; the arguments are left as they are."""
        self.outcomes += outcomes
        for metric, histogram in histograms.items():
            if metric not in self.histograms:
                self.histograms[metric] = Histogram()
            self.histograms[metric].add(histogram)
        for window, length_ns in windows.items():
            self.windows[window] = max(self.windows.get(window, 0), length_ns)

    @property
    def window_ns(self) -> int:
        """The length of all windows."""
        return sum(self.windows.values())

    @property
    def rate_per_s(self) -> float | None:
        """Requests that were ok, a second of window; None without a window."""
        return self.outcomes.ok * 1e9 / self.window_ns if self.window_ns else None


class Merge:
    """A growing sum, and the windows that are in it."""

    def __init__(self) -> None:
        self.members: dict[WindowId, Member] = {}
        self.parts: dict[PartKey, Totals] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Merge):
            return NotImplemented
        return self.members == other.members and self.parts == other.parts

    __hash__ = None  # type: ignore[assignment]  # mutable

    def add_window(self, log: WindowTotals, sha256: str, *, judged: bool, void: bool) -> bool:
        """Add an agent's window, unless it is in already: then False.

        Args:
            log: the window.
            sha256: of the log's bytes.
            judged: whether a journal says if its block counts.
            void: it does not count: it is summed up apart.
        """
        if log.window_id in self.members:
            return False
        self.members[log.window_id] = _member(log, sha256, judged=judged, void=void)
        window = {(log.header.run, log.header.window): log.header.window_ns}
        for target in log.targets.values():
            self._add_target(void, log.header, target, window)
        return True

    def add(self, other: Merge) -> bool:
        """Add another merge; False when all its windows are in already.

        Raises:
            LogError: some of its windows are in already and some are not, so that neither can be taken.
        """
        new = other.members.keys() - self.members.keys()
        if other.members and not new:
            return False
        if len(new) < len(other.members):
            lacking = min(new)
            raise LogError(
                f"{len(other.members) - len(new)} of its {len(other.members)} windows are counted from other files, "
                f"{len(new)} are not ({lacking.run} {lacking.window} {lacking.agent}, …): it cannot be split"
            )
        self.members.update(other.members)
        for key, part in other.parts.items():
            self.parts.setdefault(key, Totals()).add(part.outcomes, part.histograms, part.windows)
        return True

    def refuse_mixture(self) -> None:
        """Allow one scenario only.

        Raises:
            SpecError: the windows are of runs of different scenarios.
        """
        runs: dict[str, str] = {}
        for member in self.members.values():
            sha256 = member.scenario_sha256
            runs[sha256] = min(runs.get(sha256, member.id.run), member.id.run)
        if len(runs) > 1:
            first, second, *_ = sorted(runs.values())
            raise SpecError(
                f"runs of {len(runs)} different scenarios, {first} and {second} among them: merge each scenario by "
                "itself, or give --allow-different to add up what is different"
            )

    def to_bytes(self) -> bytes:
        """The merged log; equal merges give equal bytes."""
        parts = [Part(*key, totals.outcomes) for key, totals in self.parts.items()]
        members = tuple(sorted(self.members.values()))
        header = MergedHeader(LOG_VERSION, GEOMETRY, members, tuple(sorted(parts, key=_order)))
        histograms: dict[Key, Histogram] = {
            (*key, metric): histogram
            for key, totals in self.parts.items()
            for metric, histogram in totals.histograms.items()
        }
        return write_merged(header, histograms)

    @classmethod
    def of_merged(cls, header: MergedHeader, histograms: Mapping[Key, Histogram]) -> Merge:
        """Undo `to_bytes`, from what `read_merged` gave."""
        merge = cls()
        merge.members = {member.id: member for member in header.members}
        for part in header.parts:
            key = (part.void, part.phase, part.kind)
            own = {metric: h for (*part_key, metric), h in histograms.items() if tuple(part_key) == key}
            windows = {
                (member.id.run, member.id.window): member.window_ns
                for member in header.members
                if (member.void, member.phase) == key[:2] and part.kind in member.kinds
            }
            merge.parts.setdefault(key, Totals()).add(part.outcomes, own, windows)
        return merge

    def _add_target(
        self, void: bool, header: Header, totals: TargetTotals, window: dict[tuple[str, str], int]
    ) -> None:
        kind = totals.target.kind
        if kind is not Kind.NULL:
            part = self.parts.setdefault((void, header.phase, kind), Totals())
            part.add(totals.outcomes, totals.histograms, window)


def _member(log: WindowTotals, sha256: str, *, judged: bool, void: bool) -> Member:
    header = log.header
    return Member(
        id=log.window_id,
        phase=header.phase,
        block=header.block,
        window_ns=header.window_ns,
        start_realtime_ns=header.start_realtime_ns,
        scenario_sha256=header.scenario_sha256,
        sha256=sha256,
        sealed=log.seal is not None,
        judged=judged,
        void=void,
        kinds=tuple(sorted({target.kind for target in header.targets} - {Kind.NULL})),
    )


def _order(part: Part) -> PartKey:
    return part.void, part.phase, part.kind


def parts_of_cells(
    run: str, cells: Iterable[CellRecord], valid_blocks: Iterable[int], window_ns: int
) -> dict[PartKey, Totals]:
    """The same sums as of the logs that the cells were read from.

    Args:
        run: whose cells they are.
        cells: of any blocks and agents, each once.
        valid_blocks: those that count; all others are void.
        window_ns: the length of a window of this run.

    Raises:
        LogError: a histogram is corrupt.
    """
    valid = set(valid_blocks)
    parts: dict[PartKey, Totals] = {}
    for record in cells:
        cell = record.cell
        if cell.kind is Kind.NULL:
            continue
        histograms = {Metric(metric): Histogram.decode(text) for metric, text in record.histograms.items()}
        window = {(run, window_name(cell.block, cell.phase)): window_ns}
        part = parts.setdefault((cell.block not in valid, cell.phase, cell.kind), Totals())
        part.add(record.outcomes, histograms, window)
    return parts


def summary(
    parts: Mapping[PartKey, Totals], corrupt: Sequence[Corrupt] = (), unjudged: Sequence[str] = ()
) -> dict[str, Any]:
    """What `kabench merge --json` prints: plain data, sorted.

    `phases` holds what stands and `void` what does not, both by phase and kind; a quantile with fewer than 100 requests
    beyond it is None, the maximum only where there is none. `unjudged` names logs without a journal, which are counted.
    """
    found: dict[str, Any] = {"phases": {}, "void": {}}
    for key in sorted(parts):
        void, phase, kind = key
        found["void" if void else "phases"].setdefault(phase, {})[str(kind)] = _figures(parts[key])
    found["corrupt"] = [msgspec.to_builtins(entry) for entry in sorted(set(corrupt))]
    found["unjudged"] = sorted(set(unjudged))
    return found


def _figures(totals: Totals) -> dict[str, Any]:
    outcomes = totals.outcomes
    names = ("planned", "sent", "ok", "error", "timeout", "skipped")
    figures: dict[str, Any] = {
        "requests": {name: getattr(outcomes, name) for name in names},
        "rate_per_s": totals.rate_per_s,
    }
    for metric in (Metric.RESPONSE, Metric.SERVICE, Metric.LAG):
        histogram = totals.histograms.get(metric, Histogram())
        quantiles: dict[str, int | None] = {
            name: histogram.supported_quantile_ns(q) for name, q in QUANTILES.items()
        }
        figures[f"{metric}_ns"] = quantiles | {"max": histogram.max_ns}
    return figures
