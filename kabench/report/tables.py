"""What a finished run or a merge found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kabench.core.result import AgentsP99, BlockRecord, Contrast, PlacementAccuracy, RunResult
from kabench.report.units import ms, per_cent

QUANTILES = ("p50", "p90", "p99", "p99.9", "max")


def print_result(console: Console, result: RunResult, folder: Path) -> None:
    """Everything of a run that fits into a terminal; `folder` is where the rest is."""
    print_summary(console, result.summary)
    comparison = result.comparison
    if any(contrast.kinds for contrast in comparison.contrasts):
        _show(console, "p99 response time from quiet nodes, B over A", _contrasts(comparison.contrasts))
    if any(phase.pooled_ns is not None for phase in comparison.agents_p99):
        _show(
            console,
            "p99 response time from quiet nodes, ms: pooled, and of single agents",
            _agents(comparison.agents_p99),
        )
    if any(phase.placed for phase in comparison.accuracy):
        note = f" ({result.placement_note})" if result.placement_note else ""
        _show(console, f"where targets were placed{note}", _placements(comparison.accuracy))
    print_void(console, result.blocks)
    console.print()
    _say(console, comparison.headline, "bold")
    for verdict in comparison.verdicts:
        _say(console, verdict.sentence)
    for note in comparison.notes:
        _say(console, note, "dim")
    if result.status != "finished":
        _say(console, f"The run was {result.status}; this is what was measured until then.", "yellow")
    _say(console, f"files     {folder}")


def print_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """The figures of `kabench merge`: per phase and kind, void ones apart."""
    phases, void = summary.get("phases", {}), summary.get("void", {})
    if phases:
        _show(console, "requests", _requests(phases))
        _show(console, "times, ms", _times(phases))
    else:
        _say(console, "Nothing that stands was measured.", "yellow")
    if void:
        _show(console, "requests in void blocks", _requests(void))


def print_void(console: Console, blocks: Sequence[BlockRecord]) -> None:
    """The void blocks, a line a reason."""
    void = [block for block in blocks if not block.valid]
    if not void:
        return
    table = _table()
    for title in ("block", "phase", "reason", "detail"):
        table.add_column(title, overflow="fold")
    for block in void:
        for reason in block.void:
            table.add_row(str(block.block), reason.phase or "all", reason.code, Text(reason.detail))
    _show(console, f"void blocks ({len(void)} of {len(blocks)})", table)


def _requests(phases: Mapping[str, Any]) -> Table:
    table = _table()
    table.add_column("phase")
    table.add_column("kind")
    for name in ("sent", "ok", "error", "timeout", "skipped", "ok/s"):
        table.add_column(name, justify="right")
    for phase, kinds in phases.items():
        for kind, figures in kinds.items():
            counts = figures["requests"]
            rate = figures["rate_per_s"]
            numbers = [f"{counts[name]:,}" for name in ("sent", "ok", "error", "timeout", "skipped")]
            table.add_row(phase, kind, *numbers, "–" if rate is None else f"{rate:,.0f}")
    return table


def _times(phases: Mapping[str, Any]) -> Table:
    table = _table()
    for name in ("phase", "kind", "time"):
        table.add_column(name)
    for name in QUANTILES:
        table.add_column(name, justify="right")
    for phase, kinds in phases.items():
        for kind, figures in kinds.items():
            for metric in ("response", "service"):
                values = figures[f"{metric}_ns"]
                table.add_row(phase, kind, metric, *(ms(values[name]) for name in QUANTILES))
    return table


def _contrasts(contrasts: Sequence[Contrast]) -> Table:
    table = _table()
    for title in ("A", "B", "kind"):
        table.add_column(title)
    for title in ("blocks", "ratio", "95%", "p"):
        table.add_column(title, justify="right", no_wrap=True)
    for contrast in contrasts:
        for kind in contrast.kinds:
            interval = "–" if kind.low is None or kind.high is None else f"{kind.low:.2f}–{kind.high:.2f}"
            p = kind.p_holm if kind.p_holm is not None else kind.p
            table.add_row(
                contrast.a,
                contrast.b,
                kind.kind,
                str(len(kind.blocks)),
                "–" if kind.ratio is None else f"{kind.ratio:.2f}",
                interval,
                "–" if p is None else f"{p:.3f}",
            )
    return table


def _placements(accuracy: Sequence[PlacementAccuracy]) -> Table:
    table = _table()
    table.add_column("phase")
    for title in ("placed", "pending", "noisy", "shared", "quiet", "noisy by chance"):
        table.add_column(title, justify="right")
    for phase in accuracy:
        shares = [per_cent(n / phase.placed if phase.placed else None) for n in _counts(phase)]
        table.add_row(
            phase.phase, str(phase.placed), str(phase.unplaced), *shares, per_cent(phase.chance_noisy)
        )
    return table


def _agents(found: Sequence[AgentsP99]) -> Table:
    """A pooled p99 far above most agents' own is the work of few of them."""
    table = _table()
    for title in ("phase", "kind"):
        table.add_column(title)
    for title in ("pooled", "lowest", "median", "highest", "of"):
        table.add_column(title, justify="right")
    table.add_column("agents")
    for entry in found:
        own = sorted((ns, agent) for agent, ns in entry.by_agent.items() if ns is not None)
        withheld = len(entry.by_agent) - len(own)
        single = [ms(own[0][0]), ms(own[len(own) // 2][0]), ms(own[-1][0])] if own else ["–"] * 3
        note = f"{withheld} withheld" if withheld else f"highest: {own[-1][1]}"
        table.add_row(entry.phase, entry.kind, ms(entry.pooled_ns), *single, str(len(own)), note)
    return table


def _counts(phase: PlacementAccuracy) -> tuple[int, int, int]:
    return phase.on_noisy, phase.on_shared, phase.on_quiet


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def _show(console: Console, title: str, table: Table) -> None:
    """A table under its title; rich would wrap a title to the table's width."""
    console.print()
    _say(console, title, "bold")
    console.print(table)


def _say(console: Console, text: str, style: str = "") -> None:
    if text:
        console.print(Text(text, style=style))
