"""Merging cells: by phase, block and kind, over the agents of one role. Percentiles are taken of what was merged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from kabench.core.histogram import Histogram, decode_all
from kabench.core.identity import Kind, Metric, Outcomes
from kabench.core.result import AgentsP99, BlockRecord, CellRecord
from kabench.errors import LogError

BEYOND_TO_INFER = 10
"""Samples that must lie beyond a block's p99 for it to enter the comparison.

A p99 that is *reported* needs about 100 beyond it. A block's p99 is reported nowhere as a figure of its own: it is one of
the inputs of a test whose unit is the block, and its sampling error is part of the scatter between blocks that the
interval is made of. Below ten beyond, that error would drown what placements do; a five-second window of a quick run
has some thirty.
"""

REPORTED_BEYOND = 100
"""Samples that must lie beyond a quantile for it to be shown."""


AT_ONCE = 64
"""So many histograms are decoded together, for a third of the cost."""


class Group(NamedTuple):
    """What cells are merged over everything but."""

    phase: str
    block: int
    kind: str


def quiet_cells(blocks: Sequence[BlockRecord], cells: Iterable[CellRecord]) -> list[CellRecord]:
    """The cells that make the headline: of valid blocks and of agents that were on a quiet node in that block."""
    roles = {block.block: block.roles for block in blocks if block.valid}
    return [
        record
        for record in cells
        if record.cell.kind != Kind.NULL
        and roles.get(record.cell.block, {}).get(record.cell.agent) == "quiet"
    ]


def grouped(cells: Iterable[CellRecord]) -> dict[Group, list[CellRecord]]:
    """Cells by phase, block and kind."""
    groups: defaultdict[Group, list[CellRecord]] = defaultdict(list)
    for record in cells:
        groups[Group(record.cell.phase, record.cell.block, str(record.cell.kind))].append(record)
    return dict(groups)


def merged(cells: Iterable[CellRecord], metric: Metric) -> Histogram:
    """All counts of `metric` in `cells`; a cell without that histogram adds nothing.

    Raises:
        LogError: a histogram is corrupt.
    """
    return added(text for record in cells if (text := record.histograms.get(metric.value)))


def added(texts: Iterable[str]) -> Histogram:
    """Encoded histograms, decoded many at a time and added up.

    Raises:
        LogError: one is corrupt.
    """
    total = Histogram()
    source = iter(texts)
    while batch := list(islice(source, AT_ONCE)):
        parts = []
        for found in decode_all(batch):
            if isinstance(found, LogError):
                raise found
            parts.append(found)
        total.add_many(parts)
    return total


def block_p99_ns(groups: Mapping[Group, Sequence[CellRecord]], metric: Metric) -> dict[Group, int | None]:
    """Each group's p99; None where fewer than `BEYOND_TO_INFER` samples lie beyond it."""
    return {
        group: merged(records, metric).supported_quantile_ns(0.99, beyond=BEYOND_TO_INFER)
        for group, records in sorted(groups.items())
    }


def agents_p99(
    phases: Sequence[str], blocks: Sequence[BlockRecord], cells: Iterable[CellRecord]
) -> list[AgentsP99]:
    """The pooled p99 response time with each quiet agent's own beside it, by phase and kind.

    Raises:
        LogError: a histogram is corrupt.
    """
    counted = quiet_cells(blocks, cells)
    own: defaultdict[tuple[str, str], defaultdict[str, Histogram]] = defaultdict(
        lambda: defaultdict(Histogram)
    )
    for record in counted:
        encoded = record.histograms.get(Metric.RESPONSE.value)
        if encoded:
            cell = record.cell
            own[cell.phase, str(cell.kind)][cell.agent].add(Histogram.decode(encoded))
    return [
        _agents_p99(phase, kind, own[phase, kind])
        for phase in phases
        for kind in kinds_of(counted)
        if (phase, kind) in own
    ]


def _agents_p99(phase: str, kind: str, by_agent: Mapping[str, Histogram]) -> AgentsP99:
    pooled = Histogram()
    for histogram in by_agent.values():
        pooled.add(histogram)
    return AgentsP99(
        phase=phase,
        kind=kind,
        pooled_ns=pooled.supported_quantile_ns(0.99, beyond=REPORTED_BEYOND),
        by_agent={
            agent: by_agent[agent].supported_quantile_ns(0.99, beyond=REPORTED_BEYOND)
            for agent in sorted(by_agent)
        },
    )


def outcomes(cells: Iterable[CellRecord], phase: str, kind: str) -> Outcomes:
    """The sum of what became of one phase's requests to one kind."""
    total = Outcomes()
    for record in cells:
        if record.cell.phase == phase and record.cell.kind == kind:
            total += record.outcomes
    return total


def kinds_of(cells: Iterable[CellRecord]) -> list[str]:
    """The kinds of target among the cells, Redis first."""
    found = {str(record.cell.kind) for record in cells} - {Kind.NULL.value}
    return [kind.value for kind in Kind if kind.value in found]
