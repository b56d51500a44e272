"""`p99_comparison.png`: each block's p99 response time, phase by phase, and what may be said of the pair."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kabench.analysis.inference import geometric_mean
from kabench.analysis.words import signed_percent
from kabench.report.charts import style
from kabench.report.charts.facts import CLAIM_P99_MS, CLAIM_SOURCE, Facts, KindFacts

STAMPS = {
    "better": "better",
    "worse": "worse",
    "headroom": "what placement could change here at most",
    "equivalent": "equivalent",
    "inconclusive": "inconclusive",
    "difference": "difference, no verdict",
    "no difference found": "no difference found",
    "none": "no statement",
}

FLAT_LABELS = 26
"""Characters of all phases' names that fit side by side beneath a small panel."""


def draw(facts: Facts) -> Figure:
    """The whole chart: a panel for each kind, and the published claim beside them, apart."""
    fig = style.figure(1400, 860)
    style.title(fig, "p99 response time")
    count = max(1, len(facts.kinds))
    axes = fig.subplots(1, count + 1, width_ratios=[3.2] * count + [1.15])
    if facts.nothing:
        style.empty(axes[0], *facts.nothing)
    for ax, kind in zip(axes, facts.kinds, strict=False):
        panel(ax, facts, kind)
    claim(axes[-1])
    note = "a point is one block, a line joins its pair, a bar is the geometric mean; quiet agents only"
    style.foot(fig, f"{note}\n{facts.samples} a phase and kind · {facts.basis}")
    return fig


def panel(ax: Axes, facts: Facts, kind: KindFacts, *, compact: bool = False) -> None:
    """Blocks as points, the first two phases joined into pairs, the geometric mean as a bar, SLOs as lines."""
    roomy = len(facts.phases) <= 3 and not compact
    _pairs(ax, facts, kind)
    for position, phase in enumerate(facts.phases):
        _phase(ax, position, phase, kind, roomy=roomy)
    style.slo(ax, kind.slos_ms.values())
    values = [ns / 1e6 for blocks in kind.p99_ns.values() for ns in blocks.values()]
    values += kind.slos_ms.values()
    if values:
        ax.set_ylim(min(values) / 1.5, max(values) * 1.45)
        style.log_ms(ax)
    else:
        ax.set_yticks([])  # all withheld, and no promise either: there is nothing to scale
    ax.set_ylabel("p99 response time, ms (log)")
    few = len(facts.phases) <= 2
    ax.set_xlim((-0.72 if few else -0.95) if roomy else -0.85, len(facts.phases) - (0.28 if roomy else 0.1))
    labels = [_label(phase, kind, counted=roomy and few) for phase in facts.phases]
    ax.set_xticks(range(len(labels)), labels, fontsize=14 if roomy else 12)
    if not roomy and sum(map(len, facts.phases)) > FLAT_LABELS:
        ax.set_xticks(range(len(labels)), labels, rotation=28, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    _heading(ax, facts, kind)


def _label(phase: str, kind: KindFacts, *, counted: bool) -> str:
    """The phase, with the number of its requests where there is room; the foot has them too."""
    name = phase if len(phase) < 20 else style.wrap(phase, 16)
    return f"{name}\n{kind.requests(phase):,} requests" if counted else name


def _pairs(ax: Axes, facts: Facts, kind: KindFacts) -> None:
    compared = facts.compared(kind.kind)
    for point in compared.blocks if compared else []:
        ax.plot([0, 1], [point.a_ns / 1e6, point.b_ns / 1e6], color=style.FAINT, linewidth=1.4, zorder=1)


def _phase(ax: Axes, position: int, phase: str, kind: KindFacts, *, roomy: bool) -> None:
    look = style.phase_style(position)
    values = [ns / 1e6 for ns in kind.p99_ns[phase].values()]
    ax.scatter(
        [position] * len(values),
        values,
        s=62,
        marker=look.marker,
        color=look.color,
        edgecolors="white",
        linewidths=0.9,
        zorder=3,
    )
    mean = geometric_mean(values)
    if mean is None:
        where = ax.get_xaxis_transform()
        style.free(
            ax.text(position, 0.5, "withheld", transform=where, ha="center", color=style.MUTED, fontsize=12)
        )
        return
    # left of the first phase and right of the others, where no pair's line runs
    side = -1 if position == 0 else 1
    reach = (position + 0.1 * side, position + (0.22 if roomy else 0.3) * side)
    ax.plot(reach, [mean, mean], color=look.color, linewidth=5, solid_capstyle="butt", zorder=4)
    label = ax.annotate(
        style.milliseconds(mean * 1e6) if roomy else style.milliseconds(mean * 1e6).removesuffix(" ms"),
        (reach[1], mean),
        (5 * side, 0),
        textcoords="offset points",
        va="center",
        ha="right" if side < 0 else "left",
        fontsize=15 if roomy else 11,
        fontweight="bold",
        zorder=5,
    )
    style.free(label)


def _heading(ax: Axes, facts: Facts, kind: KindFacts) -> None:
    """The kind, then the answer in large letters."""
    amount, stamp, detail = answer(facts, kind)
    name = f"{kind.kind}  ·  {', '.join(kind.workloads)}"
    ax.set_title(name, loc="left", fontsize=15, color=style.MUTED, pad=92)
    for text, points, size, weight in (
        (amount, 52, 26 if len(amount) < 14 else 20, "bold"),
        (stamp, 31, 14, "normal"),
        (detail, 10, 13, "normal"),
    ):
        label = ax.annotate(
            text,
            (0, 1),
            (0, points),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=size,
            fontweight=weight,
            va="bottom",
        )
        style.free(label)


def answer(facts: Facts, kind: KindFacts) -> tuple[str, str, str]:
    """In large: the change, or that there is none to speak of; beneath it how far it may be read, and the interval."""
    compared, verdict = facts.compared(kind.kind), facts.verdict(kind.kind)
    if compared is None or verdict is None:
        return "not compared", "no pair of phases to compare", ""
    if compared.withheld.startswith("too few blocks"):
        return "too few blocks", compared.withheld.removeprefix("too few blocks to compare: "), ""
    if compared.withheld or compared.ratio is None or compared.low is None or compared.high is None:
        return "withheld", compared.withheld, ""
    interval = f"95% interval {signed_percent(compared.low)} to {signed_percent(compared.high)}"
    if compared.p_holm is not None:
        interval += f", p {compared.p_holm:.3f}"
    change = f"{effect_name(facts)}: {signed_percent(compared.ratio)}"
    if verdict.outcome in ("no difference found", "inconclusive", "none"):
        return STAMPS[verdict.outcome], change, interval
    return signed_percent(compared.ratio), STAMPS[verdict.outcome], interval


def effect_name(facts: Facts) -> str:
    """`B against A`."""
    return f"{facts.effect.b} against {facts.effect.a}" if facts.effect else ""


def claim(ax: Axes) -> None:
    """The published figures, grey, dashed and on axes of their own: nobody may take them for ours."""
    before, after = CLAIM_P99_MS
    bars = ax.bar(
        [0, 1],
        [before, after],
        width=0.6,
        facecolor="none",
        edgecolor=style.CLAIM,
        linestyle="--",
        hatch="//",
    )
    ax.bar_label(bars, [f"{before:.0f} ms", f"{after:.0f} ms"], padding=3, color=style.CLAIM, fontsize=13)
    ax.set_xticks([0, 1], ["before", "after"], color=style.CLAIM)
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(0, before * 1.12)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    share = 1 - after / before
    ax.set_title(f"a claim by others:\n45 → 18 ms, −{share:.0%}", fontsize=13, color=style.CLAIM, loc="left")
    ax.set_xlabel(style.wrap(CLAIM_SOURCE, 22), fontsize=10.5, color=style.CLAIM)
