"""`dashboard.png`: the run on one page, the answer first, then what it rests on."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kabench.analysis.work import noise_work
from kabench.report.charts import distribution, p99, placement, style
from kabench.report.charts.facts import CLAIM_SOURCE, Facts

LINE_PX = 22


def draw(facts: Facts) -> Figure:
    """Headline, p99 of each kind with placements, curves, instrument, and what a reader must know."""
    return _whole(facts) if facts.nothing is None else _bare(facts, *facts.nothing)


def _whole(facts: Facts) -> Figure:
    lines = _notes(facts)
    notes_px = 40 + LINE_PX * len(lines)
    fig = style.figure(1600, 1250 + notes_px)
    top, body, bottom = fig.subfigures(3, 1, squeeze=False, height_ratios=[190, 1060, notes_px])[:, 0]
    _headline(top.subplots(), facts)
    left, right = body.subfigures(1, 2, width_ratios=[2.05, 1], squeeze=False)[0]
    axes = left.subplots(2, len(facts.kinds), squeeze=False, height_ratios=[1.3, 1])
    for kind, upper, lower in zip(facts.kinds, axes[0], axes[1], strict=True):
        p99.panel(upper, facts, kind, compact=True)
        distribution.panel(lower, facts, kind, compact=True)
        lower.set_title(f"{kind.kind}: by percentile (dotted: service time)", loc="left", fontsize=14)
    where, lag, noise = right.subplots(3, 1, height_ratios=[2.6, 1, 1])
    placement.panel(where, facts, compact=True)
    where.set_title("Where targets were put\n", loc="left", fontsize=15, pad=10)
    _lag(lag, facts)
    _noise(noise, facts)
    _text(bottom.subplots(), lines)
    return fig


def _bare(facts: Facts, stamp: str, reason: str) -> Figure:
    """Nothing to compare: the stamp, the state of the instrument, and why."""
    lines = _notes(facts)
    fig = style.figure(1600, 640 + LINE_PX * len(lines))
    grid = fig.add_gridspec(3, 2, height_ratios=[0.6, 1.3, 0.08 + 0.105 * len(lines)], width_ratios=[1, 1])
    _headline(fig.add_subplot(grid[0, :]), facts)
    style.empty(fig.add_subplot(grid[1, 0]), stamp, reason)
    _lag(fig.add_subplot(grid[1, 1]), facts)
    _text(fig.add_subplot(grid[2, :]), lines)
    return fig


def _headline(ax: Axes, facts: Facts) -> None:
    style.bare(ax)
    text, size = style.wrap(facts.result.comparison.headline, 76), 22
    if text.count("\n") > 2:
        text, size = style.wrap(facts.result.comparison.headline, 96), 16
    style.free(ax.text(0, 1, text, fontsize=size, fontweight="bold", va="top", linespacing=1.25))
    style.free(ax.text(0, 0, facts.basis, fontsize=13, color=style.MUTED, va="bottom"))


def _lag(ax: Axes, facts: Facts) -> None:
    """Each quiet agent's lag p99 and null echo p99 in each window, against the gate; void blocks in red."""
    gate_ms = facts.result.scenario["gates"]["quiet_lag_p99_ms"]
    furthest = float(gate_ms or 0.5)
    for valid, color in ((True, style.INK), (False, style.BAD)):
        points = _instrument_ms(facts, valid=valid)
        furthest = max([furthest, *(value for value, _ in points)])
        values, rows = [value for value, _ in points], [row for _, row in points]
        ax.scatter(values, rows, marker="|", s=240, color=color, alpha=0.55, linewidths=1.2)
    ax.set_title("The instrument: quiet agents", loc="left", fontsize=14)
    if gate_ms is not None:
        ax.axvline(gate_ms, color=style.SLO, linestyle=(0, (5, 3)))
        style.free(
            ax.annotate(
                f"gate on lag {gate_ms:g} ms",
                (gate_ms, 0.5),
                (-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=11,
                color=style.SLO,
            )
        )
    ax.set_yticks([0, 1], ["lag p99", "null echo p99"], fontsize=12)
    ax.set_ylim(1.6, -0.6)
    ax.set_xlim(0, furthest * 1.1)
    ax.tick_params(axis="both", labelsize=11)
    ax.set_xlabel("ms, an agent and window each; red: void", fontsize=11)
    ax.grid(axis="x")


def _instrument_ms(facts: Facts, *, valid: bool) -> list[tuple[float, int]]:
    """(milliseconds, row) of quiet agents' lag p99 (row 0) and null echo p99 (row 1), in valid or in void blocks."""
    roles = {block.block: block.roles for block in facts.result.blocks if block.valid == valid}
    return [
        (value_ns / 1e6, row)
        for record in facts.result.rounds
        for agent in record.agents
        if roles.get(record.block, {}).get(agent.agent) == "quiet"
        for row, value_ns in enumerate((agent.lag_p99_ns, agent.null_p99_ns))
        if value_ns is not None
    ]


def _noise(ax: Axes, facts: Facts) -> None:
    """The noise's own work per phase: a win that starves the batch work is none."""
    valid = [block for block in facts.result.blocks if block.valid]
    work = noise_work(valid, facts.result.rounds)
    stressors = sorted({stressor for _, stressor in work})
    ax.set_title("The noise's own work, by phase", loc="left", fontsize=14)
    if not work:
        style.bare(ax)
        style.free(ax.text(0, 0.5, "no noise, or its work is unknown", color=style.MUTED, fontsize=12))
        return
    first = facts.phases[0]
    height = 0.8 / len(facts.phases)
    for index, phase in enumerate(facts.phases):
        look = style.phase_style(index)
        for row, stressor in enumerate(stressors):
            base = work.get((first, stressor))
            if base and (phase, stressor) in work:
                share = work[phase, stressor] / base
                y = row - 0.4 + height * (index + 0.5)
                ax.plot([0, share], [y, y], color=look.color, linewidth=1.5)
                ax.scatter([share], [y], marker=look.marker, color=look.color, s=42, zorder=3)
    ax.axvline(1, color=style.FAINT, zorder=0)
    ax.set_yticks(range(len(stressors)), stressors, fontsize=12)
    ax.set_ylim(len(stressors) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.tick_params(axis="both", labelsize=11)
    ax.set_xlabel(f"operations per second, {first} = 1", fontsize=11)


def _notes(facts: Facts) -> list[str]:
    found = [f"•  {note}" for note in facts.result.comparison.notes]
    for block in facts.result.blocks:
        if block.void:
            reasons = "; ".join(f"{reason.phase or 'all'}: {reason.detail}" for reason in block.void[:2])
            more = f" (and {len(block.void) - 2} more)" if len(block.void) > 2 else ""
            found.append(f"×  block {block.block} void: {reasons}{more}")
    if len(found) > 14:
        found = [*found[:13], f"…  and {len(found) - 13} more in results.json"]
    found.append(
        f"○  A claim by others, not ours: p99 45 → 18 ms (−60%), pods on noisy nodes 45% → 12% ({CLAIM_SOURCE})."
    )
    return [line for note in found for line in style.wrap(note, 185).split("\n")]


def _text(ax: Axes, lines: list[str]) -> None:
    style.bare(ax)
    style.free(ax.text(0, 1, "\n".join(lines), fontsize=12.5, color=style.INK, va="top", linespacing=1.35))
