"""What a finished run or a merge found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kabench.analysis.instrument import run_doubts
from kabench.analysis.loading import is_standing
from kabench.core.result import AgentsP99, BlockRecord, Contrast, PlacementAccuracy, RunResult
from kabench.report.layout import say, show, table
from kabench.report.load import print_load
from kabench.report.units import ms, per_cent

QUANTILES = ("p50", "p90", "p99", "p99.9", "max")


def print_result(console: Console, result: RunResult, folder: Path, correct_ns: int | None = None) -> None:
    """Everything of a run that fits into a terminal; `folder` is where the rest is."""
    if is_standing(result):
        print_load(console, result, correct_ns)
        print_void(console, result.blocks)
        console.print()
    else:
        _print_comparison(console, result)
    if result.status != "finished":
        say(console, f"The run was {result.status}; this is what was measured until then.", "yellow")
    say(console, f"files     {folder}")


def _print_comparison(console: Console, result: RunResult) -> None:
    """Everything of a run that places its targets."""
    print_summary(console, result.summary)
    comparison = result.comparison
    if any(contrast.kinds for contrast in comparison.contrasts):
        show(console, "p99 response time from quiet nodes, B over A", _contrasts(comparison.contrasts))
    if any(phase.pooled_ns is not None for phase in comparison.agents_p99):
        show(
            console,
            "p99 response time from quiet nodes, ms: pooled, and of single agents",
            _agents(comparison.agents_p99),
        )
    if any(phase.placed for phase in comparison.accuracy):
        note = f" ({result.placement_note})" if result.placement_note else ""
        show(console, f"where targets were placed{note}", _placements(comparison.accuracy))
    print_void(console, result.blocks)
    console.print()
    say(console, comparison.headline, "bold")
    for verdict in comparison.verdicts:
        say(console, verdict.sentence)
    for note in comparison.notes:
        say(console, note, "dim")
    for doubt in run_doubts(result):
        say(console, str(doubt), "yellow")


def print_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """The figures of `kabench merge`: per phase and kind, void ones apart."""
    phases, void = summary.get("phases", {}), summary.get("void", {})
    if phases:
        show(console, "requests", _requests(phases))
        show(console, "times, ms", _times(phases))
    else:
        say(console, "Nothing that stands was measured.", "yellow")
    if void:
        show(console, "requests in void blocks", _requests(void))


def print_void(console: Console, blocks: Sequence[BlockRecord]) -> None:
    """The void blocks, a line a reason."""
    void = [block for block in blocks if not block.valid]
    if not void:
        return
    rows = table()
    for title in ("block", "phase", "reason", "detail"):
        rows.add_column(title, overflow="fold")
    for block in void:
        for reason in block.void:
            rows.add_row(str(block.block), reason.phase or "all", reason.code, Text(reason.detail))
    show(console, f"void blocks ({len(void)} of {len(blocks)})", rows)


def _requests(phases: Mapping[str, Any]) -> Table:
    rows = table()
    rows.add_column("phase")
    rows.add_column("kind")
    for name in ("sent", "ok", "error", "timeout", "skipped", "ok/s"):
        rows.add_column(name, justify="right")
    for phase, kinds in phases.items():
        for kind, figures in kinds.items():
            counts = figures["requests"]
            rate = figures["rate_per_s"]
            numbers = [f"{counts[name]:,}" for name in ("sent", "ok", "error", "timeout", "skipped")]
            rows.add_row(phase, kind, *numbers, "–" if rate is None else f"{rate:,.0f}")
    return rows


def _times(phases: Mapping[str, Any]) -> Table:
    rows = table()
    for name in ("phase", "kind", "time"):
        rows.add_column(name)
    for name in QUANTILES:
        rows.add_column(name, justify="right")
    for phase, kinds in phases.items():
        for kind, figures in kinds.items():
            for metric in ("response", "service"):
                values = figures[f"{metric}_ns"]
                rows.add_row(phase, kind, metric, *(ms(values[name]) for name in QUANTILES))
    return rows


def _contrasts(contrasts: Sequence[Contrast]) -> Table:
    rows = table()
    for title in ("A", "B", "kind"):
        rows.add_column(title)
    for title in ("blocks", "ratio", "95%", "p"):
        rows.add_column(title, justify="right", no_wrap=True)
    for contrast in contrasts:
        for kind in contrast.kinds:
            interval = "–" if kind.low is None or kind.high is None else f"{kind.low:.2f}–{kind.high:.2f}"
            p = kind.p_holm if kind.p_holm is not None else kind.p
            rows.add_row(
                contrast.a,
                contrast.b,
                kind.kind,
                str(len(kind.blocks)),
                "–" if kind.ratio is None else f"{kind.ratio:.2f}",
                interval,
                "–" if p is None else f"{p:.3f}",
            )
    return rows


def _placements(accuracy: Sequence[PlacementAccuracy]) -> Table:
    rows = table()
    rows.add_column("phase")
    for title in ("placed", "pending", "noisy", "shared", "quiet", "noisy by chance"):
        rows.add_column(title, justify="right")
    for phase in accuracy:
        shares = [per_cent(n / phase.placed if phase.placed else None) for n in _counts(phase)]
        rows.add_row(
            phase.phase, str(phase.placed), str(phase.unplaced), *shares, per_cent(phase.chance_noisy)
        )
    return rows


def _agents(found: Sequence[AgentsP99]) -> Table:
    """A pooled p99 far above most agents' own is the work of few of them."""
    rows = table()
    for title in ("phase", "kind"):
        rows.add_column(title)
    for title in ("pooled", "lowest", "median", "highest", "of"):
        rows.add_column(title, justify="right")
    rows.add_column("agents")
    for entry in found:
        own = sorted((ns, agent) for agent, ns in entry.by_agent.items() if ns is not None)
        withheld = len(entry.by_agent) - len(own)
        single = [ms(own[0][0]), ms(own[len(own) // 2][0]), ms(own[-1][0])] if own else ["–"] * 3
        note = f"{withheld} withheld" if withheld else f"highest: {own[-1][1]}"
        rows.add_row(entry.phase, entry.kind, ms(entry.pooled_ns), *single, str(len(own)), note)
    return rows


def _counts(phase: PlacementAccuracy) -> tuple[int, int, int]:
    return phase.on_noisy, phase.on_shared, phase.on_quiet
