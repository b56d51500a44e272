"""The tables at a run's end, in 80 columns."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from kabench.core.result import (
    AgentsP99,
    BlockRecord,
    Comparison,
    Contrast,
    KindComparison,
    PlacementAccuracy,
    RunResult,
    Verdict,
    VoidReason,
)
from kabench.report.tables import print_result, print_summary

TIMES = {"p50": 100_000, "p90": 200_000, "p99": 1_500_000, "p99.9": None, "max": 9_000_000}
FIGURES = {
    "requests": {"planned": 13, "sent": 12, "ok": 9, "error": 2, "timeout": 1, "skipped": 1},
    "rate_per_s": 1234.5,
    "response_ns": TIMES,
    "service_ns": TIMES,
    "lag_ns": TIMES,
}


def result(**changes: Any) -> RunResult:
    kind = KindComparison("redis", ratio=0.4, low=0.3, high=0.5, p=0.0078, p_holm=0.0156)
    content: dict[str, Any] = {
        "run": "r",
        "schema": 1,
        "kabench": "0",
        "status": "finished",
        "started_realtime_ns": 1,
        "finished_realtime_ns": 2,
        "backend": "local",
        "placement_note": "simulated placement",
        "scenario": {},
        "scenario_sha256": "0",
        "seed": 1,
        "environment": {},
        "nodes": [],
        "blocks": [
            BlockRecord(1, ["a"], [], {}, valid=True),
            BlockRecord(2, ["a"], [], {}, void=[VoidReason("lag", "a", "node-4: [0.6] ms")]),
        ],
        "rounds": [],
        "cells": [],
        "summary": {"phases": {"default": {"redis": FIGURES}}, "void": {"default": {"redis": FIGURES}}},
        "comparison": Comparison(
            contrasts=[Contrast("effect", "default", "contention-aware", [kind])],
            verdicts=[Verdict("redis", "better", "redis: 60% below.")],
            accuracy=[PlacementAccuracy("default", 8, 4, 2, 2, 0.33)],
            headline="A headline.",
            notes=["A note."],
        ),
    }
    return RunResult(**(content | changes))


def printed(found: RunResult) -> str:
    console = Console(file=io.StringIO(), width=80, record=True)
    print_result(console, found, Path("results/r"))
    return console.export_text()


def test_everything_a_reader_wants_first_is_there() -> None:
    text = printed(result())
    rows = [line.split() for line in text.splitlines()]
    assert ["default", "redis", "12", "9", "2", "1", "1", "1,234"] in rows
    assert ["default", "redis", "response", "0.100", "0.200", "1.50", "–", "9.00"] in rows
    assert ["default", "contention-aware", "redis", "0", "0.40", "0.30–0.50", "0.016"] in rows
    assert ["default", "8", "0", "50%", "25%", "25%", "33%"] in rows
    assert ["2", "a", "lag", "node-4:", "[0.6]", "ms"] in rows
    for line in (
        "A headline.",
        "redis: 60% below.",
        "A note.",
        "files     results/r",
        "void blocks (1 of 2)",
    ):
        assert line in text.splitlines()
    assert "where targets were placed (simulated placement)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_run_that_was_cut_short_says_so_and_shows_no_empty_table() -> None:
    empty = Comparison(
        contrasts=[Contrast("effect", "a", "b", [])], accuracy=[PlacementAccuracy("a", 0, 0, 0, 0, 0)]
    )
    text = printed(result(status="interrupted", summary={}, comparison=empty, blocks=[]))
    assert "Nothing that stands was measured." in text
    assert "The run was interrupted" in text
    assert not any(title in text for title in ("requests", "placed", "p99 response", "void blocks"))


def test_a_merge_without_void_blocks_has_no_table_of_them() -> None:
    console = Console(file=io.StringIO(), width=80, record=True)
    print_summary(console, {"phases": {"a": {"http": {**FIGURES, "rate_per_s": None}}}, "void": {}})
    text = console.export_text()
    assert "void" not in text
    assert ["a", "http", "12", "9", "2", "1", "1", "–"] in [line.split() for line in text.splitlines()]


def test_single_agents_stand_beside_the_pooled_p99() -> None:
    own: dict[str, int | None] = {"node-4": 900_000, "node-5": 9_000_000, "node-6": 1_000_000}
    found = [
        AgentsP99("default", "redis", 5_000_000, own),
        AgentsP99("default", "http", 5_000_000, {"node-4": None, "node-5": 1_000_000}),
    ]
    text = printed(result(comparison=Comparison(agents_p99=found)))
    rows = [line.split() for line in text.splitlines()]
    assert ["default", "redis", "5.00", "0.900", "1.00", "9.00", "3", "highest:", "node-5"] in rows
    assert ["default", "http", "5.00", "1.00", "1.00", "1.00", "1", "1", "withheld"] in rows
    assert max(map(len, text.splitlines())) <= 80


def test_single_agents_are_not_shown_where_nothing_is_known_of_any() -> None:
    found = [AgentsP99("default", "redis", None, {"node-4": None})]
    assert "of single agents" not in printed(result(comparison=Comparison(agents_p99=found)))
