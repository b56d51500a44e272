"""What a search for the highest rate found: its tries as a table, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from kabench.analysis.rate_search import answer
from kabench.core.result import RunResult, Tried
from kabench.report.layout import say, show, table
from kabench.report.units import ms, per_cent


def tries_of(result: RunResult) -> list[Tried]:
    """The tries of a run, in their order; none where it was no search."""
    return [msgspec.convert(event, Tried) for event in result.journal if event.get("event") == "tried"]


def try_line(tried: Tried) -> str:
    """One try, as it is told when it is over."""
    times = ", ".join(f"{name} {ms(value)}" for name, value in tried.quantiles_ns.items())
    failed = f", failed {tried.error_share:.2%}" if tried.error_share else ""
    verdict = "holds" if tried.outcome == "holds" else f"{_verdict(tried)}: {tried.detail}"
    return f"{tried.rate_per_s:>10,.6g}/s  {times} ms{failed}  {verdict}"


def print_search(console: Console, tries: Sequence[Tried]) -> None:
    """All tries by rate, and the answer."""
    show(
        console, "response times of all tries, ms", _table(sorted(tries, key=lambda tried: tried.rate_per_s))
    )
    console.print()
    say(console, answer(tries).sentence, "bold")


def search_summary(tries: Sequence[Tried]) -> dict[str, Any]:
    """The search as plain data."""
    found = answer(tries)
    return {
        "promise": tries[0].promise if tries else "",
        "rate_per_s": found.rate_per_s,
        "sentence": found.sentence,
        "tries": [msgspec.to_builtins(tried) for tried in tries],
    }


def _table(tries: Sequence[Tried]) -> Table:
    rows = table()
    names = list(tries[0].quantiles_ns) if tries else []
    for title in ("rate", "ok/s", *names, "failed", "lag p99", "CPU"):
        rows.add_column(title, justify="right", no_wrap=True)
    rows.add_column("")
    for tried in tries:
        rows.add_row(
            f"{tried.rate_per_s:,.6g}",
            f"{tried.ok_per_s:,.0f}",
            *(ms(tried.quantiles_ns[name]) for name in names),
            f"{tried.error_share:.2%}" if tried.error_share else "0",
            ms(tried.lag_p99_ns),
            per_cent(tried.cpu_share),
            "holds" if tried.outcome == "holds" else _verdict(tried),
        )
    return rows


def _verdict(tried: Tried) -> str:
    return {
        "slo": "does not hold",
        "errors": "errors",
        "generator": "the generator's limit",
        "lost": "not measured",
    }[tried.outcome]
