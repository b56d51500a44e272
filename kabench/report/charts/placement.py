"""`placement_accuracy.png`: where each phase put its targets, beside chance and beside the published claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from kabench.core.result import PlacementAccuracy
from kabench.report.charts import style
from kabench.report.charts.facts import CLAIM_ON_NOISY, CLAIM_SOURCE, Facts


def draw(facts: Facts) -> Figure:
    """The whole chart: a bar a phase, then the claim's two, apart."""
    fig = style.figure(1400, 470 + 84 * len(facts.phases))
    style.title(fig, "Targets placed on noisy nodes")
    ax, below = fig.subplots(2, 1, height_ratios=[len(facts.phases) + 0.4, 1.5])
    panel(ax, facts)
    claim(below)
    style.foot(fig, facts.basis)
    return fig


def panel(ax: Axes, facts: Facts, *, compact: bool = False) -> None:
    """A stacked bar for each phase: noisy, shared, quiet; each block's own share on noisy nodes as a point."""
    accuracy = [entry for entry in facts.result.comparison.accuracy if entry.placed]
    if not accuracy:
        stamp, why = facts.nothing or ("NOTHING PLACED", "No valid block has a placement.")
        style.empty(ax, stamp, why)
        return
    for row, entry in enumerate(accuracy):
        _bar(ax, row, entry, compact=compact)
    _chance(ax, accuracy, compact=compact)
    names = []
    for entry in accuracy:
        share = f"{entry.on_noisy / entry.placed:.0%}"
        pending = f"\n{entry.unplaced} left pending" if entry.unplaced else ""
        names.append(
            f"{style.wrap(entry.phase, 20)}\n"
            + (f"{share} noisy" if compact else f"{share} of {entry.placed} on noisy")
            + pending
        )
    ax.set_yticks(range(len(names)), names, fontsize=12 if compact else 14)
    ax.set_ylim(len(names) - 0.45, -0.85)
    ax.tick_params(axis="y", length=0)
    _percent_axis(ax)
    ax.set_xlabel(
        "share of targets, over the valid blocks (points: each block's share on noisy nodes)", fontsize=12
    )
    if compact:
        ax.set_xlabel("share of targets", fontsize=12)
    handles = [
        Patch(
            facecolor=color,
            hatch=hatch,
            edgecolor=style.INK,
            label=role if compact else f"on {role} nodes",
            linewidth=0.6,
        )
        for role, (color, hatch) in style.ROLES.items()
    ]
    ax.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=3,
        fontsize=11 if compact else 13,
        columnspacing=1,
    )


def _bar(ax: Axes, row: int, entry: PlacementAccuracy, *, compact: bool) -> None:
    left = 0.0
    counts = {"noisy": entry.on_noisy, "shared": entry.on_shared, "quiet": entry.on_quiet}
    for role, count in counts.items():
        share = count / entry.placed
        color, hatch = style.ROLES[role]
        ax.barh(
            row,
            share,
            left=left,
            height=0.62,
            color=color,
            hatch=hatch,
            edgecolor=style.INK,
            linewidth=0.6,
            zorder=2,
        )
        if share >= 0.07:
            label = ax.text(
                left + share / 2,
                row,
                f"{share:.0%}",
                ha="center",
                va="center",
                fontsize=(13 if compact else 17) if role == "noisy" else 12,
                fontweight="bold" if role == "noisy" else "normal",
                zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0, "alpha": 0.85},
            )
            style.free(label)
        left += share
    if not compact:
        _block_points(ax, row, entry.by_block)


def _block_points(ax: Axes, row: int, shares: Sequence[float]) -> None:
    """A point a block, beneath the bar; equal shares are stacked."""
    seen: Counter[float] = Counter()
    deepest = max(Counter(shares).values(), default=1)
    step = min(0.075, 0.22 / deepest)
    for share in shares:
        y = row + 0.37 + step * seen[share]
        seen[share] += 1
        ax.scatter(
            [share],
            [y],
            s=30,
            facecolor="white",
            edgecolor=style.INK,
            linewidths=0.9,
            zorder=6,
            clip_on=False,
        )


def _chance(ax: Axes, accuracy: list[PlacementAccuracy], *, compact: bool) -> None:
    chance = accuracy[0].chance_noisy
    if not chance:
        return
    ax.axvline(chance, color=style.INK, linewidth=2, linestyle=(0, (4, 2)), zorder=4)
    style.free(
        ax.annotate(
            f"chance {chance:.0%}",
            (chance, -0.62),
            (5, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=11 if compact else 13,
        )
    )


def _percent_axis(ax: Axes) -> None:
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")


def claim(ax: Axes) -> None:
    """The published shares, grey and dashed, on axes of their own."""
    ax.barh(
        [0, 1],
        CLAIM_ON_NOISY,
        height=0.6,
        facecolor="none",
        edgecolor=style.CLAIM,
        linestyle="--",
        hatch="//",
    )
    for row, share in enumerate(CLAIM_ON_NOISY):
        style.free(ax.text(share + 0.01, row, f"{share:.0%}", va="center", color=style.CLAIM))
    ax.set_yticks([0, 1], ["before (claim)", "after (claim)"], color=style.CLAIM)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(1.6, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xticks([])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set_title(
        "A claim by others, not our measurement: 45% → 12% of pods on noisy nodes",
        loc="left",
        fontsize=14,
        color=style.CLAIM,
    )
    style.free(ax.text(0.55, 0.5, style.wrap(CLAIM_SOURCE, 44), va="center", fontsize=12, color=style.CLAIM))
