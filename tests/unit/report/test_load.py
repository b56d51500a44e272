"""The tables of a load run, in 80 columns."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

from rich.console import Console

from kabench.core.hlog import ConnectionFigure, Extremes
from kabench.core.result import RunResult
from kabench.report.load import load_line
from kabench.report.tables import print_result


def printed(result: RunResult, correct_ns: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=80, record=True)
    print_result(console, result, Path("results/r"), correct_ns)
    return console.export_text()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_an_open_loop_shows_both_times_and_what_others_would_have_said(synthetic: ModuleType) -> None:
    text = printed(synthetic.build_load(synthetic.LoadRecipe(wait_ns=30_000)))
    found = rows(text)
    assert ["redis", "24,000", "24,000", "24,000", "0", "0", "0"] in found
    assert ["redis", "2,000", "2,000", "2,000", "2,000"] in found
    assert ["response", "service", "wait", "lag"] in found
    p99 = next(row for row in found if row and row[0] == "p99")
    assert float(p99[1]) > 50 * float(p99[2])
    assert f"a p99 of {p99[2]} ms, where users feel {p99[1]} ms" in flat(text)
    assert ["agent-1", "0.020", "0.020", "0.040", "20%", "3%"] in found
    assert "well below the targets'" in text
    assert "may be the tail" not in text
    assert "not reached" not in text


def test_what_the_agents_own_lag_made_is_not_said_to_be_felt(synthetic: ModuleType) -> None:
    text = flat(printed(synthetic.build_load(synthetic.LoadRecipe(lag_ns=900_000, stall_ms=0))))
    assert "users feel" not in text
    assert "ms from when they were due hold the agents' own lag (0.89" in text


def test_a_percentile_on_few_requests_is_withheld(synthetic: ModuleType) -> None:
    found = rows(printed(synthetic.build_load()))
    assert ["p99.99", "–", "–", "–", "–"] in found
    assert ["p99.9", "–", "–", "–", "–"] in found


def test_the_instrument_is_not_called_calm_where_nothing_could_be_compared(synthetic: ModuleType) -> None:
    text = flat(printed(synthetic.build_load(synthetic.LoadRecipe(samples=200, lag_ns=10_000_000))))
    assert "p99 – – – –" in text
    assert "may be the tail" in text  # by the median
    text = flat(printed(synthetic.build_load(synthetic.LoadRecipe(samples=200))))
    assert "well below" not in text
    assert "Too few requests to hold the instrument's times against the targets' p99." in text


def test_a_closed_loop_says_what_it_hides_and_defines_neither_lag_nor_wait(synthetic: ModuleType) -> None:
    recipe = synthetic.LoadRecipe(load={"loop": "closed", "connections": 50, "pipeline": 16})
    text = printed(synthetic.build_load(recipe))
    assert "queueing does not show" in flat(text)
    assert ["response", "service"] in rows(text)
    assert ["agent-1", "0.020", "0.020", "0.040", "20%", "3%"] in rows(text)
    assert "null's lag p99" in text
    assert "Lag and wait are not defined here" in flat(text)
    assert "orrected" not in text
    assert "asked" not in text.split("redis, ms")[0]


def test_a_correction_comes_only_when_asked_and_says_that_it_is_an_estimate(synthetic: ModuleType) -> None:
    result = synthetic.build_load(synthetic.LoadRecipe(load={"loop": "closed"}))
    text = printed(result, correct_ns=100_000)
    assert ["response", "service", "corrected"] in rows(text)
    assert "one every 0.100 ms. An estimate" in flat(text)
    assert "The median is above 0.100 ms" in flat(text)
    assert "The median is above" not in flat(printed(result, correct_ns=200_000))


def test_a_connection_that_stands_out_is_named(synthetic: ModuleType) -> None:
    figures = [
        ConnectionFigure(n, f"127.0.0.1:4000{n}", 500, mean_ns) for n, mean_ns in enumerate((80_000, 300_000))
    ]
    recipe = synthetic.LoadRecipe(connections={"redis-1": Extremes(*figures)}, samples=200)
    text = flat(printed(synthetic.build_load(recipe)))
    assert "redis-1: its slowest connection (127.0.0.1:40001 of agent-1, 500 requests) took 0.3 ms" in text
    assert "slowest connection" not in flat(printed(synthetic.build_load()))


def test_a_generator_that_rivals_its_target_is_called_so(synthetic: ModuleType) -> None:
    recipe = synthetic.LoadRecipe(stall_ms=0, lag_ns=900_000, null_p99_ns=300_000, cpu_share=0.93)
    text = flat(printed(synthetic.build_load(recipe)))
    assert text.count("the generator may be the tail") == 3
    assert "late at sending" in text
    assert "null echo, a server that does nothing, takes 0.3 ms" in text
    assert "the limit of the rate: agent-1 used 93% of a CPU" in text


def test_errors_and_what_was_not_reached_are_named_by_target(synthetic: ModuleType) -> None:
    targets = (synthetic.A_REDIS, synthetic.B_REDIS, synthetic.A_SERVER)
    recipe = synthetic.LoadRecipe(targets=targets, skipped=3000, errors=4)
    text = printed(synthetic.build_load(recipe))
    assert "redis: errors: reset 16" in text
    assert "http: errors: reset 8" in text
    said = flat(text)
    assert said.count("offered not reached") == 3
    assert "redis-2: offered not reached: 6,000 of 24,000 requests (25.0%) were skipped" in said
    assert ["127.0.0.1:6379", "24,000", "18,000", "17,992", "8", "0", "6,000"] in rows(text)
    assert max(map(len, text.splitlines())) <= 80


def test_how_the_targets_were_driven_is_one_line(synthetic: ModuleType) -> None:
    def line(**load: object) -> str:
        return load_line(synthetic.build_load(synthetic.LoadRecipe(load=load, samples=10)).scenario)

    ours = "for 12 s; 1 connection of each of 2 agents to each target"
    assert line(rate_per_s=2000) == f"open loop, Poisson arrivals, 2,000/s in all, {ours}"
    assert line(loop="closed", connections=50, pipeline=16) == (
        "closed loop, for 12 s; 50 connections of each of 2 agents to each target, 16 requests in flight on each"
    )
    steps = [
        {"at": 0, "factor": 0.5},
        {"at": 0.5, "factor": 0.5},
        {"at": 0.5, "factor": 1},
        {"at": 1, "factor": 1},
    ]
    assert "constant arrivals, 1,000 → 2,000/s in all" in line(
        rate_per_s=2000, profile=steps, arrivals="constant"
    )
    many = [{"at": n / 10, "factor": 1 + n % 7} for n in range(11)]
    assert "2,000 → 14,000 → 8,000/s in all" in line(rate_per_s=2000, profile=many)


def test_nothing_measured_is_said(synthetic: ModuleType) -> None:
    result = synthetic.build_load(synthetic.LoadRecipe(agents=1, targets=(synthetic.A_REDIS,)))
    empty = type(result)(**{name: getattr(result, name) for name in result.__struct_fields__} | {"cells": []})
    assert "Nothing was measured." in printed(empty)
