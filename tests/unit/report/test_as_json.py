"""What `--json` prints: the figures of a merge, and what a reader must know beside them."""

from __future__ import annotations

from types import ModuleType

import msgspec

from kabench.core.hlog import ConnectionFigure, Extremes
from kabench.report.as_json import run_summary


def test_a_load_tells_its_instrument_doubts_and_what_was_not_reached(synthetic: ModuleType) -> None:
    recipe = synthetic.LoadRecipe(skipped=3000, cpu_share=0.95)
    found = run_summary(synthetic.build_load(recipe), "results/x")
    assert msgspec.json.decode(msgspec.json.encode(found)) == found
    assert [(agent["agent"], agent["cpu_share"]) for agent in found["instrument"]] == [
        ("agent-1", 0.95),
        ("agent-2", 0.95),
    ]
    assert found["instrument"][0]["null_p99_ns"] == 40_000
    (doubt,) = found["doubts"]
    assert "agent-1 used 95% of a CPU" in doubt
    (short,) = found["not_reached"]
    assert short.startswith("redis: offered not reached: 6,000 of 24,000")
    calm = run_summary(synthetic.build_load(), "results/x")
    assert calm["doubts"] == calm["not_reached"] == calm["connections_apart"] == []
    figures = [
        ConnectionFigure(n, f"127.0.0.1:4000{n}", 500, mean_ns) for n, mean_ns in enumerate((80_000, 300_000))
    ]
    odd = synthetic.LoadRecipe(samples=50, connections={"redis-1": Extremes(*figures)})
    (line,) = run_summary(synthetic.build_load(odd), "results/x")["connections_apart"]
    assert line.startswith("redis-1: its slowest connection (127.0.0.1:40001 of agent-1")


def test_a_run_tells_its_instrument_too(synthetic: ModuleType) -> None:
    found = run_summary(synthetic.build(synthetic.Recipe(blocks=2, samples=40)), "results/x")
    assert [agent["agent"] for agent in found["instrument"]] == [f"node-{n}" for n in range(1, 7)]
    assert {agent["windows"] for agent in found["instrument"]} == {4}
    assert found["not_reached"] == []
    assert {"placements", "comparison", "run", "status", "folder"} <= found.keys()
